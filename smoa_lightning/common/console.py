"""Notes of the program: how much a command shows, and on which stream.

Modules log to a logger with their own name. :func:`console` shows these notes while a command runs. A program that uses
this package as a library configures logging itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO

PACKAGE = "smoa_lightning"
NORMAL, QUIET, VERBOSE = "normal", "quiet", "verbose"
LEVELS = {NORMAL: logging.INFO, QUIET: logging.WARNING, VERBOSE: logging.DEBUG}
FLAGS = {
    QUIET: "show only warnings, errors and results, without progress bars",
    VERBOSE: "show details too: cache hits, versions, timings and messages of libraries",
}
HELP = "\n".join(["flags of every command:", *(f"  --{name:13} {text}" for name, text in FLAGS.items())])
NO_BARS = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # tqdm and huggingface_hub read them at import
LIBRARIES_WITHOUT_HANDLER = ("peft", "httpx")
# For the argument ``extra`` of a log call: the stream of the note, without a prefix.
ON_STDOUT, ON_STDERR = {"stream": "stdout"}, {"stream": "stderr"}

_mode = NORMAL


class ConsoleHandler(logging.Handler):
    """Prints notes to the standard output, and warnings, errors and messages of libraries to the standard error.

    In a run of several processes, only the first process prints notes; every process prints warnings and errors.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record. A closed pipe raises an error, as it does for ``print``."""
        is_note, text = record.levelno < logging.WARNING, self.format(record)
        if is_note and not is_first_process():
            return
        if record.name.split(".")[0] != PACKAGE:
            name, text = "stderr", f"{record.name}: {text}"
        elif hasattr(record, "stream"):
            name = record.stream
        elif is_note:
            name = "stdout"
        else:
            warning = "warning: " if record.levelno == logging.WARNING else ""  # an error ends the command
            name, text = "stderr", f"{PACKAGE}: {warning}{text}"
        print(text, file=getattr(sys, name), flush=True)


def is_first_process() -> bool:
    """Whether this process is the only process of a run, or the first of several."""
    module = sys.modules.get("lightning_utilities.core.rank_zero")  # Lightning stores the rank there
    return getattr(getattr(module, "rank_zero_only", None), "rank", 0) == 0


def split_flags(args: list[str]) -> tuple[str, list[str]]:
    """Return how much to show, and the arguments without ``--quiet`` and ``--verbose``; the last flag counts.

    >>> split_flags(["--quiet", "fit", "--config", "a.yaml"])
    ('quiet', ['fit', '--config', 'a.yaml'])
    """
    mode, rest = NORMAL, []
    for word in args:
        if word.startswith("--") and word[2:] in FLAGS:
            mode = word[2:]
        else:
            rest.append(word)
    return mode, rest


@contextlib.contextmanager
def console(mode: str = NORMAL) -> Iterator[None]:
    """Show the notes of this package until the end of the block.

    Args:
        mode: ``normal``, ``quiet`` (warnings and errors, no progress bars) or ``verbose`` (also messages of libraries).
    """
    global _mode
    package, handler = logging.getLogger(PACKAGE), ConsoleHandler()
    loggers = [package, *map(logging.getLogger, LIBRARIES_WITHOUT_HANDLER if mode == VERBOSE else ())]
    before, level, propagate = _mode, package.level, package.propagate
    environment = {name: os.environ.get(name) for name in NO_BARS}
    _mode = mode
    package.setLevel(LEVELS[mode])
    package.propagate = False  # a library may have configured the root logger
    for logger in loggers:
        logger.addHandler(handler)
    os.environ.update(NO_BARS if mode == QUIET or not is_terminal(sys.stderr) else {})
    try:
        yield
    finally:
        _mode = before
        package.setLevel(level)
        package.propagate = propagate
        for logger in loggers:
            logger.removeHandler(handler)
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def is_quiet() -> bool:
    """Whether the command was started with ``--quiet``."""
    return _mode == QUIET


def is_verbose() -> bool:
    """Whether the command was started with ``--verbose``."""
    return _mode == VERBOSE


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody sees a stream at once: progress bars in a file or a pipe are noise."""
    return stream is not None and stream.isatty()


def no_bar() -> bool | None:
    """Return the argument ``disable`` of tqdm: no bar with ``--quiet``; ``None`` means that a terminal has one."""
    return True if is_quiet() else None


def flags() -> list[str]:
    """Return the flags that make a new process show as much as this process."""
    return [] if _mode == NORMAL else [f"--{_mode}"]


def set_library_levels() -> None:
    """Let libraries log as much as the command shows; call it after their import, which sets their levels."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING if is_quiet() else logging.INFO)
    for name in ("transformers", "huggingface_hub", *LIBRARIES_WITHOUT_HANDLER):
        logging.getLogger(name).setLevel(logging.INFO if _mode == VERBOSE else logging.WARNING)
