"""Temporary files and folders that killed processes left: how they are named, recognised and removed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from smoa_lightning.common.machine import machine, process_state

OLD_SECONDS = 24 * 3600  # after this time a leftover of another machine counts as abandoned
NAME = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-(?:(?P<machine>[0-9a-f]{6})[0-9a-f]{6}|[0-9a-f]{8})\.(?:tmp|old)")


@functools.cache
def _tag(machine_name: str) -> str:
    return hashlib.sha256(machine_name.encode()).hexdigest()[:6]


def temporary_stem(name: str) -> str:
    """Return a new name, without its ending, for a temporary file next to the file ``name``.

    It contains this process and its machine. Its random part is for threads.
    """
    return f".{name}.{os.getpid()}-{_tag(machine())}{secrets.token_hex(3)}"


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what dead processes left in a folder. A folder that was moved aside and not replaced gets its name back.

    Files of other machines are removed after a day, since this one cannot see their processes. What cannot be removed
    stays.

    Args:
        folder: The folder; not its subfolders.
        name: Only temporary files for this file or folder; ``None`` for all.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = NAME.fullmatch(entry.name)
            if found is not None and name in (None, found["name"]) and _is_abandoned(found, Path(entry.path)):
                _remove(Path(entry.path), folder / found["name"])


def _is_abandoned(found: re.Match[str], path: Path) -> bool:
    if found["machine"] == _tag(machine()) and process_state(os.getpid()) is not None:  # else it is not Linux
        state = process_state(int(found["pid"]))
        return state is None or state[0] == "Z"
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > OLD_SECONDS
    return False


def _remove(leftover: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        if leftover.suffix == ".old" and not target.exists():
            leftover.rename(target)
        elif leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
