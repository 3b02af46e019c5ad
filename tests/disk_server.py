"""Run commands in forked processes in which the disk fails from a chosen operation on, then run them again.

``python -m tests.disk_server`` reads one job from each line of its input and prints one line with its result.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from tests.training.kill_server import counted_fit, fit, forked, serve


def failing(arguments: list[str], root: Path, operation: int, name: str, length: int | None) -> int:
    """Run a command; from a file operation on, every write under ``root`` raises. Operation 0 lists them in a file.

    With ``length``, the disk is good again after so many operations.
    """

    def act(number: int) -> None:
        if operation and number >= operation and (length is None or number < operation + length):
            code = getattr(errno, name)
            raise OSError(code, os.strerror(code), str(root / "a file"))

    return counted_fit(arguments, root, operation, act)


def do(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job: the command with the failing disk, then the same command with a good one."""
    root = Path(job["root"])
    log = root.parent / f"{root.name}.log"
    log.unlink(missing_ok=True)
    status = forked(lambda: failing(job["arguments"], root, job["operation"], job["error"], job.get("length")), log)
    shown = log.read_text(encoding="utf-8")
    final = forked(lambda: fit(job["arguments"]), log) if job["operation"] else status
    return {**job, "status": status, "shown": shown, "final": final, "log": log.read_text(encoding="utf-8")}


if __name__ == "__main__":
    serve(do)
