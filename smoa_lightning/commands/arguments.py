"""Shared by the plain commands: a parser with one-sentence errors, and the check of an adapter folder."""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path
from typing import Any, NoReturn

from smoa_lightning.common import other_backbone
from smoa_lightning.common.allowed_classes import FLAG
from smoa_lightning.common.allowed_classes import HELP as FLAG_HELP
from smoa_lightning.common.console import HELP
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.class_names import check_adapter_files
from smoa_lightning.records.adapter_places import adapter_in

UNKNOWN = re.compile("unrecognized arguments: --")


def add_allow_classes(parser: argparse.ArgumentParser) -> None:
    """Add the flag that allows the classes of further packages in an adapter folder."""
    parser.add_argument(f"--{FLAG}", action="append", default=[], metavar="PACKAGE", help=FLAG_HELP)


def add_allow_other_backbone(parser: argparse.ArgumentParser) -> None:
    """Add the flag that allows a backbone that differs from the one in training."""
    parser.add_argument(f"--{other_backbone.FLAG}", action="store_true", help=other_backbone.HELP)


def add_backbone_path(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names the folder of the backbone, also under the key that ``fit`` has for it."""
    text = "folder of the backbone, if it has moved since training"
    names = ("--backbone", "--model.backbone.path")
    parser.add_argument(*names, dest="backbone", default=None, metavar="FOLDER", help=text)


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises each error as a UserError of one sentence, and takes full names of flags only."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False)
        self._words: list[str] = []

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words; an unknown flag is named even if a required flag is missing, which it may be a typo of."""
        self._words = list(args or ())
        return super().parse_args(args, namespace)

    def format_help(self) -> str:
        """Return the help with the flags of every command."""
        return f"{super().format_help()}\n{HELP}\n"

    def error(self, message: str) -> NoReturn:
        """Raise the error with the name of the command and the way to its help."""
        command = self.prog.rpartition(" ")[2]
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        words = itertools.takewhile(lambda word: word != "--", self._words)
        unknown = [word for word in words if re.match(r"--[\w.-]+(=|$)", word) and word.partition("=")[0] not in flags]
        if unknown and (UNKNOWN.match(message) or "required" in message):
            message = message if UNKNOWN.match(message) else f"unrecognized arguments: {unknown[0]}"
            message += f": the nearest flag is {nearest(unknown[0].partition('=')[0], flags, 1)}"
        raise UserError(f"{command}: {message}; see {command} --help")


def check_adapter_folder(folder: str | Path) -> None:
    """Refuse a folder without an adapter, before heavy libraries are imported.

    Raises:
        UserError: The folder holds no adapter, or its files name code.
    """
    check_adapter_files(adapter_in(Path(folder)))
