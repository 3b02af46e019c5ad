"""Help and argument errors without torch: settings are read from source files instead of imported classes."""

from __future__ import annotations

from smoa_lightning.configuration.check import check_arguments, needs_checkpoint, unknown_key
from smoa_lightning.configuration.describe import describe
from smoa_lightning.configuration.plain import PARSERS as PLAIN
from smoa_lightning.configuration.plain import parse
from smoa_lightning.configuration.settings import COMMANDS
from smoa_lightning.configuration.yaml_files import expand_bases

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
