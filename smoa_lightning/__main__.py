"""The entry point ``python -m smoa_lightning <command>``. Heavy libraries are imported only when a command runs."""

from __future__ import annotations

import importlib
import os
import sys

from smoa_lightning.commands import COMMANDS
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.version import __version__


def overview() -> str:
    """Return the list of commands."""
    lines = [f"smoa_lightning {__version__}: high-rank parameter-efficient fine-tuning", "", "commands:"]
    lines += [f"  {name:10} {text}" for name, text in COMMANDS.items()]
    lines += ["", "python -m smoa_lightning COMMAND --help shows the settings of a command"]
    return "\n".join(lines)


def main(args: list[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 2 on bad input, 130 after Ctrl-C, 141 after a closed pipe."""
    args = sys.argv[1:] if args is None else args
    try:
        status = run(args)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"smoa_lightning: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("smoa_lightning: stopped; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as in `fit --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at exit
        return 141


def run(args: list[str]) -> int:
    """Run a command and return its exit status.

    Raises:
        UserError: Bad input.
    """
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0 if args else 2
    if args[0] == "--version":
        print(__version__)
    elif args[0] not in COMMANDS:
        raise UserError(f"unknown command {args[0]!r}; did you mean {nearest(args[0], COMMANDS, 1)}?")
    elif args[0] in ("validate", "test", "predict"):
        importlib.import_module("smoa_lightning.commands.fit").main(args[1:], args[0])
    else:
        importlib.import_module(f"smoa_lightning.commands.{args[0]}").main(args[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
