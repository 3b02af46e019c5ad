"""Run commands in forked processes in which the disk fails from a chosen operation on, then run them again.

``python -m tests.disk_server JOBS.json`` reads a list of jobs and prints one JSON object for each of them.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.training.kill_server import Operations, fit, forked


def failing(arguments: list[str], root: Path, operation: int, name: str, length: int | None) -> int:
    """Run a command; from a file operation on, every write under ``root`` raises. Operation 0 counts into a file.

    With ``length``, the disk is good again after so many operations.
    """

    def act(number: int) -> None:
        if operation and number >= operation and (length is None or number < operation + length):
            code = getattr(errno, name)
            raise OSError(code, os.strerror(code), str(root / "a file"))

    operations = Operations(root, act)
    status = fit(arguments)
    if not operation:
        (root.parent / "count.txt").write_text(str(operations.count))
    return status


def do(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job: the command with the failing disk, then the same command with a good one."""
    root = Path(job["root"])
    log = root.parent / f"{root.name}.log"
    log.unlink(missing_ok=True)
    status = forked(lambda: failing(job["arguments"], root, job["operation"], job["error"], job.get("length")), log)
    shown = log.read_text(encoding="utf-8")
    final = forked(lambda: fit(job["arguments"]), log) if job["operation"] else status
    return {**job, "status": status, "shown": shown, "final": final, "log": log.read_text(encoding="utf-8")}


def main() -> None:
    """Do the jobs of a file."""
    import torch

    import smoa_lightning.training.cli  # imported once, for all forks
    import smoa_lightning.training.generate  # noqa: F401

    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        print(json.dumps(do(job)), flush=True)


if __name__ == "__main__":
    main()
