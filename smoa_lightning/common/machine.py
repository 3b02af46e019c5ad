"""The name of this machine and the state of its processes."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path


@functools.cache
def machine() -> str:
    """Return the name of host, boot and process namespace (of a container)."""
    parts = [platform.node() or "unknown"]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")[:8])
        parts.append(os.readlink("/proc/self/ns/pid").strip("pid:[]"))
    except OSError:
        pass  # not Linux: start times are unknown, so only signs of life are used
    return "/".join(parts).replace(" ", "_")


def process_state(pid: int) -> tuple[str, str] | None:
    """Return state letter and start time of a process from ``/proc``; ``None`` if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    words = text.rpartition(")")[2].split()  # the part after the name, since the name may have spaces
    return words[0], words[19]
