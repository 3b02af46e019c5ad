"""Help and argument errors without torch: settings are read from source files instead of imported classes."""

from __future__ import annotations

from smoa_lightning.arguments.check import check_arguments, needs_checkpoint, unknown_key
from smoa_lightning.arguments.describe import describe
from smoa_lightning.arguments.files import expand_bases
from smoa_lightning.arguments.plain import PARSERS as PLAIN
from smoa_lightning.arguments.plain import parse
from smoa_lightning.arguments.settings import COMMANDS

__all__ = [
    "COMMANDS",
    "PLAIN",
    "check_arguments",
    "describe",
    "expand_bases",
    "needs_checkpoint",
    "parse",
    "unknown_key",
]
