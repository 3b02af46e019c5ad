"""The processes of one run: which strategies of Lightning can train it, and how all of them end if one does."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities.exceptions import SIGTERMException

from smoa_lightning.common.errors import UserError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
# Time for the first process to notice the end of another one itself, and to write the reason into the record.
NOTICE_SECONDS = 3.0
LOST_PROCESS = re.compile(r"peer|connection (reset|closed|refused)|socket|remote process|nccl", re.IGNORECASE)
ADVICE = "run the same command again to continue from the last checkpoint"
UNSUPPORTED = {
    "fsdp": "it shards trained and frozen weights as one, and the adapters need whole frozen weights",
    "deepspeed": "it writes checkpoints of its own, and the gradients of a step cannot be divided by its target tokens",
    "xla": "it is not tested",
}


def check_distributed_strategy(strategy: Any) -> None:
    """Refuse strategies that cannot train an adapter as one process does.

    Args:
        strategy: The setting ``trainer.strategy``: a name, or a class path with its arguments.

    Raises:
        UserError: The strategy is not supported; the message says why.
    """
    name = strategy if isinstance(strategy, str) else getattr(strategy, "class_path", type(strategy).__name__)
    start = (getattr(strategy, "init_args", None) or {}).get("start_method", "popen")
    if start != "popen":
        raise UserError(
            f"trainer.strategy: start_method is {start!r}, but must be popen: a copied process would not have the "
            "state of this run"
        )
    short = name.rpartition(".")[2].lower().replace("_", "")
    for kind, reason in UNSUPPORTED.items():
        if short.startswith(kind) and short != "fsdp2":
            raise UserError(
                f"trainer.strategy: {name!r} is not supported, since {reason}; use ddp, fsdp2, or auto with one device"
            )


def check_accelerator(chosen: Any) -> None:
    """Refuse an accelerator that this machine does not have.

    Args:
        chosen: The setting ``trainer.accelerator``; an object is left to Lightning.

    Raises:
        UserError: The message names those that it has.
    """
    names = AcceleratorRegistry.available_accelerators()  # to Lightning, whether or not there is such a device
    here = sorted(name for name in names if AcceleratorRegistry[name]["accelerator"].is_available())
    here += ["gpu"] if {"cuda", "mps"} & set(here) else []
    if isinstance(chosen, str) and chosen not in (*here, "auto"):
        raise UserError(
            f"trainer.accelerator is {chosen!r}, which this machine does not have: set it to {', '.join(here)} or auto"
        )


def stop_if_terminated(trainer: L.Trainer) -> None:
    """Stop a run that has received the signal SIGTERM, as Ctrl-C does.

    Lightning stops after a batch of rows, but neither after the last batch nor while a callback computes, and the next
    step of the run would forget the signal.

    Raises:
        SIGTERMException: The signal has arrived since the trainer began.
    """
    if trainer.received_sigterm:
        raise SIGTERMException


@contextlib.contextmanager
def ending_together(trainer: L.Trainer) -> Iterator[None]:
    """End all processes of a run when one of them ends early, with one sentence from the first process.

    Raises:
        UserError: Another process has ended, in the first process.
        SystemExit: Another process has ended, in the other processes.
    """
    if trainer.world_size == 1:
        yield
        return
    over = threading.Event()
    before = subprocess_script._launch_process_observer
    # Lightning's own thread kills the first process without a word
    subprocess_script._launch_process_observer = lambda child_processes: _watch(child_processes, over)
    launcher: Any = trainer.strategy.launcher
    try:
        yield
    except BaseException as error:
        processes: Sequence[Any] = getattr(launcher, "procs", ())
        lost = isinstance(error, RuntimeError) and (_ended_early(processes, NOTICE_SECONDS) or _is_lost(error))
        over.set()
        _kill(processes)
        if not lost:
            raise
        if trainer.global_rank:
            raise SystemExit(1) from error
        raise UserError(f"{lost}: {ADVICE}") from error
    finally:
        over.set()
        subprocess_script._launch_process_observer = before


def _is_lost(error: RuntimeError) -> str:
    """Return the sentence about a lost process if that is the reason of an error, else an empty text."""
    return "another process of the run has ended" if LOST_PROCESS.search(str(error)) else ""


def _ended_early(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> str:
    """Return how one of the processes has ended before the run, waiting for it some seconds; empty if none has."""
    limit = time.monotonic() + seconds
    while processes:
        for rank, process in enumerate(processes, 1):
            if process.poll():
                status = process.returncode
                how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
                return f"process {rank} of the run {how}"
        if time.monotonic() > limit:
            break
        time.sleep(POLL_SECONDS)
    return ""


def _watch(processes: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """End this process if another one has ended early, and this one waits for it without noticing."""

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            lost = _ended_early(processes, 0)
            if lost and not over.wait(NOTICE_SECONDS):
                logger.error("%s: %s", lost, ADVICE)
                _kill(processes)
                os._exit(1)

    threading.Thread(target=watch, name="processes", daemon=True).start()


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes that may wait for others forever."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
