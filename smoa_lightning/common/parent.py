"""Processes that end when the process that started them is gone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time

PARENT = "SMOA_LIGHTNING_PARENT"  # environment variable: the number of the process that started this one
POLL_SECONDS = 1.0
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def parent_is_gone() -> bool:
    """Whether the process named by the environment variable is not the parent of this process any more."""
    return PARENT in os.environ and os.environ[PARENT] != str(os.getppid())


def end_with_parent(number: signal.Signals) -> None:
    """Get a signal once when the process named by the environment variable ends, however it ends.

    Linux sends the signal. On other systems, and if the parent has already ended, a thread sends it.

    Args:
        number: The signal to this process.
    """
    if PARENT not in os.environ:
        return
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, int(number), 0, 0, 0) == 0 and not parent_is_gone():
            return

    def watch() -> None:
        while not parent_is_gone():
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, name="parent", daemon=True).start()
