"""The entry point ``python -m smoa_lightning <command>``. Heavy libraries are imported only when a command runs."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import TextIO

from smoa_lightning.commands import COMMANDS, OTHER_NAMES
from smoa_lightning.common.console import FLAGS, HELP, console, split_flags
from smoa_lightning.common.disk_errors import (
    FULL_STATUS,
    STATUS,
    again,
    disk_is_full,
    disk_sentence,
    threads_without_traceback,
)
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.common.user_program import is_importing
from smoa_lightning.version import __version__

CONTINUING = {"fit", "ablate", "generate"}  # commands that go on from what an interrupted one has written
logger = logging.getLogger("smoa_lightning")  # __name__ is __main__ here


def overview() -> str:
    """Return the list of commands."""
    lines = [f"smoa_lightning {__version__}: high-rank parameter-efficient fine-tuning", "", "commands:"]
    lines += [f"  {name:10} {text}" for name, text in COMMANDS.items()]
    lines += ["", HELP, "", "python -m smoa_lightning COMMAND --help shows the settings of a command"]
    return "\n".join(lines)


def main(args: list[str] | None = None) -> int:
    """Run a command and return the exit status.

    It is 0, 2 on bad input, 74 on an error of the disk, 75 on a full disk, 130 after Ctrl-C, 141 after a closed pipe.
    """
    mode, args = split_flags(sys.argv[1:] if args is None else args)
    continues = not CONTINUING.isdisjoint(args[:1])
    with console(mode), threads_without_traceback():
        try:
            status = run(args)
            sys.stdout.flush()
            return status
        except UserError as error:
            logger.error("%s", error)
            return FULL_STATUS if disk_is_full(error) else 2
        except KeyboardInterrupt:
            logger.error("stopped; %s", again(continues))
            return 130
        except BrokenPipeError:  # the reader has closed the pipe, as in `fit --help | head`
            leave_output(sys.stdout)
            return 141
        except Exception as error:
            sentence = disk_sentence(error, continues)
            if sentence is None:
                raise
            try:
                logger.debug("the error in full:", exc_info=True)
                logger.error("%s", sentence)
            except OSError:  # the output is a file on the same full disk
                leave_output(sys.stdout)
                leave_output(sys.stderr)
            return FULL_STATUS if disk_is_full(error) else STATUS


def leave_output(stream: TextIO) -> None:
    """Send the rest of an output that cannot be written to nowhere: Python writes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(args: list[str]) -> int:
    """Run a command and return its exit status.

    Raises:
        UserError: Bad input.
    """
    for flag, _, value in (word.partition("=") for word in args):
        if value and flag.startswith("--") and flag[2:] in FLAGS:
            raise UserError(f"{flag} takes no value, but has the value {value!r}")
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0 if args else 2
    if args[0] == "--version":
        print(__version__)
    elif args[0] not in COMMANDS:
        meant = OTHER_NAMES.get(args[0]) or nearest(args[0], COMMANDS, 1)
        raise UserError(f"unknown command {args[0]!r}; did you mean {meant}?")
    elif is_importing():
        raise UserError(
            f"this program starts the command {args[0]} while a worker of a study imports it: start it under "
            'if __name__ == "__main__"'
        )
    elif args[0] in ("validate", "test", "predict"):
        importlib.import_module("smoa_lightning.commands.fit").main(args[1:], args[0])
    else:
        importlib.import_module(f"smoa_lightning.commands.{args[0]}").main(args[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
