"""The command line of the programs that rebuild an embedded model: a folder, and two numbers of the recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from smoa_lightning.common.errors import UserError

R = TypeVar("R", bound=Any)  # a dataclass with ``steps`` and ``threads``
OPTIONS = {"steps": "training steps", "threads": "CPU threads; part of what determines the bytes"}


def rebuild_as_asked(
    module: str, summary: str | None, folder: Path, recipe: R, rebuild: Callable[[Path, R], Any], arguments: Any
) -> None:
    """Read the command line and rebuild.

    Args:
        module: Name of the program.
        summary: Its docstring.
        folder: The shipped folder of the model.
        recipe: The recipe without options.
        rebuild: Called with the folder to write and the recipe.
        arguments: The command line; None for that of the process.

    Raises:
        UserError: A number is below 1.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(summary or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=folder, help="folder to write (default: the shipped one)")
    for name, what in OPTIONS.items():
        default = getattr(recipe, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default: %(default)s)")
    options = vars(parser.parse_args(arguments))
    numbers = {name: options[name] for name in OPTIONS}
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"--{name} is {value}; the least valid value is 1")
    rebuild(options["output"], replace(recipe, **numbers))


def run(main: Callable[[], None]) -> None:
    """Run a program whose errors are one sentence."""
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
