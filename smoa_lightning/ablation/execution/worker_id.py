"""The identity of a worker: a process on a machine, and how other processes notice that it is dead."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from smoa_lightning.common.machine import machine, process_state

PULSE_SECONDS = 15.0  # between two signs of life
GRACE_SECONDS = 90.0  # a worker on another machine counts as dead after this time without a sign of life


@dataclass(frozen=True)
class WorkerId:
    """A process.

    Args:
        machine: Host name, boot and process namespace. Process numbers are unique only within these.
        pid: Process number.
        started: Start time in ticks since boot, since process numbers are used again. Empty if it is unknown.
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
        """Read the output of ``str``; ``None`` for other texts."""
        words = text.split(" ")
        return cls(words[0], int(words[1]), words[2]) if len(words) == 3 and words[1].isdigit() else None

    def __str__(self) -> str:
        return f"{self.machine} {self.pid} {self.started}"

    def alive(self) -> bool | None:
        """Whether the process exists; ``None`` if this machine cannot know."""
        if self.machine != machine() or not self.started:
            return None
        found = process_state(self.pid)
        return found is not None and found[0] != "Z" and found[1] == self.started


@dataclass
class Watch:
    """Watches the signs of life of other workers by the clock of this process, since other clocks may be wrong.

    Args:
        grace: Seconds without a new sign of life after which a worker counts as dead.
        clock: Returns seconds that never decrease.
    """

    grace: float = GRACE_SECONDS
    clock: Callable[[], float] = time.monotonic
    _seen: dict[int, tuple[object, float]] = field(default_factory=dict)

    def dead(self, attempt: int, worker: str, pulse: object) -> bool:
        """Whether the worker of an attempt is dead.

        Args:
            attempt: Number of the attempt in the storage.
            worker: Its worker, as text; empty if unknown.
            pulse: Its last sign of life; any value that changes.
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
