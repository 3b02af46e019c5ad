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

_told = False  # the signal may come before the system gives this process another parent


def parent_is_gone() -> bool:
    """Whether the process named by the environment variable has ended."""
    return _told or (PARENT in os.environ and os.environ[PARENT] != str(os.getppid()))


def stop_with_parent() -> None:
    """Stop like Ctrl-C, once, when the process named by the environment variable ends.

    A worker has its own session, so nothing else sends it SIGHUP.
    """

    def stop(number: int, frame: object) -> None:
        global _told
        _told = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGHUP, stop)
    _signal_at_end_of_parent(signal.SIGHUP)


def die_with_parent() -> None:
    """End this process at once when the process named by the environment variable ends."""
    _signal_at_end_of_parent(signal.SIGKILL)


def _signal_at_end_of_parent(number: signal.Signals) -> None:
    """Send a signal to this process when its parent ends: Linux does it. Elsewhere, or if it is too late, a thread."""
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
