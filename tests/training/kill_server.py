"""Start runs in forked processes that are killed at a chosen file operation, then finished by the same command.

``python -m tests.training.kill_server`` reads one job from each line of its input and prints one line with its result.
A process that has imported everything is forked, so that a run takes about a second instead of ten.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.training.file_operations import Operations


def forked(work: Callable[[], int], log: Path) -> int:
    """Run ``work`` in a fork of this process; return its exit status, negative for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 99
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def fit(arguments: list[str]) -> int:
    """Run the command line."""
    from smoa_lightning.__main__ import main

    return main(arguments)


def counted_fit(arguments: list[str], root: Path, operation: int, act: Callable[[int], None]) -> int:
    """Run the command line with ``act`` before each file operation; operation 0 lists them in ``operations.json``."""
    operations = Operations(root, act)
    status = fit(arguments)
    if not operation:
        (root.parent / "operations.json").write_text(json.dumps(operations.kinds))
    return status


def killed_fit(arguments: list[str], root: Path, operation: int) -> int:
    """Run the command line; kill the process before a file operation. Operation 0 only counts them."""

    def act(number: int) -> None:
        if number == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    return counted_fit(arguments, root, operation, act)


def do(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job: kill at each of ``operations`` in turn, in one run folder, then run to the end."""
    root = Path(job["root"])
    root.mkdir(parents=True, exist_ok=True)
    arguments, log = [*job["arguments"], "--run.root", str(root)], root.parent / f"{root.name}.log"
    statuses = [forked(lambda n=number: killed_fit(arguments, root, n), log) for number in job["operations"]]
    final = forked(lambda: fit(arguments), log) if job["finish"] else 0
    return {**job, "statuses": statuses, "final": final}


def serve(do: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Do the jobs of the input."""
    import torch

    import smoa_lightning.training.cli  # imported once, for all forks
    import smoa_lightning.training.generate  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(do(json.loads(line))), flush=True)


ROOT = Path(__file__).parents[2]


@contextmanager
def server(folder: Path, module: str = __name__) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Start a server; yield the function that does one job."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command, log = [sys.executable, "-m", module], folder / "server.log"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, env=environment, stderr=errors, text=True, **pipes) as process,  # type: ignore[call-overload]
    ):

        def answer(job: dict[str, Any]) -> dict[str, Any]:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            found: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
            assert found, log.read_text()[-3000:]
            return found

        yield answer
    assert process.returncode == 0, log.read_text()[-3000:]


if __name__ == "__main__":
    serve(do)
