"""The dispatcher: ``python -m smoa_lightning <command>``. Heavy modules are imported only by the command that runs."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.version import __version__

COMMANDS = {
    "fit": ("smoa_lightning.commands.fit", "train a strategy on a task and score it"),
    "validate": ("smoa_lightning.commands.fit", "score a checkpoint on the selection rows"),
    "test": ("smoa_lightning.commands.fit", "score a checkpoint on the report rows"),
    "predict": ("smoa_lightning.commands.fit", "write the score of every item of the report rows"),
    "generate": ("smoa_lightning.commands.generate", "continue prompts with the best adapter of a run"),
    "params": ("smoa_lightning.commands.params", "show what a configuration adapts and what it costs, without data"),
    "ablate": ("smoa_lightning.commands.ablate", "run a study: a grid of cells with seeds, and searches"),
    "report": ("smoa_lightning.commands.report", "turn a study's folder into tables, figures and one page"),
    "rank": ("smoa_lightning.commands.rank", "measure the rank of a run's update, as a table and a figure"),
}

LIGHT = {"ablate", "report"}  # commands that need no torch, or only their workers do


def overview() -> str:
    """Return the list of commands."""
    lines = [f"smoa_lightning {__version__}: high-rank parameter-efficient fine-tuning", "", "commands:"]
    lines += [f"  {name:10} {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "python -m smoa_lightning COMMAND --help shows the settings of a command"]
    return "\n".join(lines)


def answered_early(command: str, args: list[str]) -> bool:
    """Give help, or refuse what is wrong in the arguments, before anything heavy is imported.

    Returns:
        Whether the command is done.

    Raises:
        UserError: Something in the arguments is wrong.
    """
    from smoa_lightning import configuration
    from smoa_lightning.configuration import plain

    if command in plain.PARSERS:
        plain.parse(command, args)
        return False
    if command not in configuration.COMMANDS:
        return False  # it looks after its own arguments
    if "-h" in args or "--help" in args:
        print(configuration.describe(command, args, COMMANDS[command][1]))
        return True
    configuration.check_arguments(command, args)
    return False


def imported(command: str) -> Any:
    """Import the module that carries out a command."""
    if command in LIGHT:
        return importlib.import_module(COMMANDS[command][0])
    from smoa_lightning.common.fast_imports import import_command

    return import_command(COMMANDS[command][0])


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
        print("smoa_lightning: stopped; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has gone, as in `fit --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
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
    elif not answered_early(args[0], args[1:]):
        imported(args[0]).main(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
