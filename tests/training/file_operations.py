"""Counts the operations of a process that change files under a folder, and acts before a chosen one."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Event -> index of the path that changes, and of the folder that a relative path is in (None: it has none)
EVENTS: dict[str, tuple[int, int | None]] = {
    "os.rename": (1, 3),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.mkdir": (0, 2),
    "os.truncate": (0, None),
}
REMOVAL = "member of a removed folder"  # shutil.rmtree names the entries of an open folder without their folder
HALF = "half of a file"  # of a library that writes files without Python


class Operations:
    """Counts operations that change files under a folder, and acts before a chosen one.

    Only operations of this thread are numbered, so that a run has the same numbers each time. Those of other threads,
    such as TensorBoard's, act with the number of the last one.

    Args:
        root: Only operations under this folder count.
        act: Called with the number of each operation, from 1, before it takes place.
    """

    def __init__(self, root: Path, act: Callable[[int], None]) -> None:
        self.root, self.act, self.kinds = os.path.abspath(root), act, list[str]()
        self._thread, self._quiet = threading.get_ident(), False
        self._fsync, os.fsync = os.fsync, self._counting_fsync
        sys.addaudithook(self._hook)
        self._wrap_libraries()

    @property
    def count(self) -> int:
        """The number of operations so far."""
        return len(self.kinds)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES and self._is_inside(path, -1):
                self._next(event)
        elif event in EVENTS:
            place, folder = EVENTS[event]
            descriptor = -1 if folder is None else arguments[folder]
            if self._is_inside(arguments[place], descriptor):
                self._next(REMOVAL if descriptor != -1 else event)

    def _is_inside(self, path: Any, folder: int) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        elif folder != -1:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        return os.path.abspath(os.fsdecode(path)).startswith(self.root)

    def _counting_fsync(self, handle: Any) -> None:
        self._next("fsync")
        self._fsync(handle)

    def _next(self, kind: str) -> None:
        if self._quiet:
            return
        if threading.get_ident() == self._thread:
            self.kinds.append(kind)
        self.act(self.count)

    def _wrap_libraries(self) -> None:
        """Count the files that torch and safetensors write: each before its start, and when half of it is on disk."""
        import safetensors.torch
        import torch

        def counting(write: Callable[..., Any], place: int) -> Callable[..., Any]:
            def counted(*arguments: Any, **named: Any) -> Any:
                file = arguments[place]
                if not isinstance(file, str | os.PathLike) or not self._is_inside(file, -1):
                    return write(*arguments, **named)
                self._next("open")
                result = write(*arguments, **named)
                self._with_half(Path(file))
                return result

            return counted

        torch.save = counting(torch.save, 1)
        safetensors.torch.serialize_file = counting(safetensors.torch.serialize_file, 1)  # type: ignore[attr-defined]

    def _with_half(self, file: Path) -> None:
        self._quiet = True
        content = file.read_bytes()
        os.truncate(file, len(content) // 2)
        self._quiet = False
        self._next(HALF)
        self._quiet = True
        file.write_bytes(content)
        self._quiet = False
