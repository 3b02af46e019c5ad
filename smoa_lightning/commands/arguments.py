"""Shared by the plain commands: a parser with one-sentence errors, and the check of an adapter folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from smoa_lightning.common.console import HELP
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import ADAPTER_FACTS


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises each error as a UserError of one sentence."""

    def format_help(self) -> str:
        """Return the help with the flags of every command."""
        return f"{super().format_help()}\n{HELP}\n"

    def error(self, message: str) -> NoReturn:
        """Raise the error with the name of the command and the way to its help."""
        command = self.prog.rpartition(" ")[2]
        raise UserError(f"{command}: {message}; see {command} --help")


def check_adapter_folder(folder: str | Path) -> None:
    """Refuse a folder without an adapter, before heavy libraries are imported.

    Raises:
        UserError: The folder holds no adapter.
    """
    if not any((Path(folder) / inner / ADAPTER_FACTS).is_file() for inner in ("", "adapter/best")):
        raise UserError(f"{folder} is neither a run with an adapter nor an adapter folder: it has no {ADAPTER_FACTS}")
