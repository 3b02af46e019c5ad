"""Who holds a run: a process on a machine, and how another process finds out that it is gone."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PULSE_SECONDS = 15.0  # between two signs of life
GRACE_SECONDS = 90.0  # without a sign of life, a worker that can not be looked at is taken for dead


@dataclass(frozen=True)
class WorkerId:
    """A process.

    Args:
        machine: Host name, boot and process namespace: where process numbers mean the same.
        pid: Its number.
        started: When it started, in ticks since boot; numbers are given again. Empty where that can not be told.
    """

    machine: str
    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> WorkerId:
        """Return the identity of a process of this machine."""
        return cls(machine(), pid, (process_state(pid) or ("", ""))[1])

    @classmethod
    def parse(cls, text: str) -> WorkerId | None:
        """Read what ``str`` wrote; ``None`` for anything else."""
        words = text.split(" ")
        return cls(words[0], int(words[1]), words[2]) if len(words) == 3 and words[1].isdigit() else None

    def __str__(self) -> str:
        return f"{self.machine} {self.pid} {self.started}"

    def alive(self) -> bool | None:
        """Whether the process is there; ``None`` where that can not be told from here."""
        if self.machine != machine() or not self.started:
            return None
        found = process_state(self.pid)
        return found is not None and found[0] != "Z" and found[1] == self.started


def machine() -> str:
    """Name the place where process numbers mean the same: host, boot and, in containers, process namespace."""
    parts = [platform.node() or "unknown"]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")[:8])
        parts.append(os.readlink("/proc/self/ns/pid").strip("pid:[]"))
    except OSError:
        pass  # not Linux: processes of one host can not be told apart by their start, so pulses decide
    return "/".join(parts).replace(" ", "_")


def process_state(pid: int) -> tuple[str, str] | None:
    """Return state letter and start time of a process from ``/proc``, ``None`` where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    words = text.rpartition(")")[2].split()  # behind the name, which may hold anything
    return words[0], words[19]


@dataclass
class Watch:
    """What this process has seen of others' signs of life, by its own clock: theirs may be wrong.

    Args:
        grace: Seconds without a new sign after which a worker is dead.
        clock: Seconds that only grow.
    """

    grace: float = GRACE_SECONDS
    clock: Callable[[], float] = time.monotonic
    _seen: dict[int, tuple[object, float]] = field(default_factory=dict)

    def dead(self, attempt: int, worker: str, pulse: object) -> bool:
        """Whether the worker of an attempt is gone.

        Args:
            attempt: Number of the attempt in the storage.
            worker: Its worker, as text; empty if it never said who it is.
            pulse: Its last sign of life: anything that changes.
        """
        found = WorkerId.parse(worker)
        alive = found.alive() if found is not None else None
        if alive is not None:
            return not alive
        before = self._seen.get(attempt)
        if before is None or before[0] != pulse:
            self._seen[attempt] = (pulse, self.clock())
            return False
        return self.clock() - before[1] > self.grace
