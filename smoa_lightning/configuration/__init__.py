"""The settings: composition of files and flags, the schema, early checks and help, without torch.

Only ``parser``, the real parser, imports Lightning and peft.
"""

from __future__ import annotations

from smoa_lightning.configuration.check import check_arguments, check_strategy, needs_checkpoint
from smoa_lightning.configuration.describe import describe, help_or_check
from smoa_lightning.configuration.key_names import unknown_key
from smoa_lightning.configuration.settings import COMMANDS
from smoa_lightning.configuration.short_flags import with_full_keys
from smoa_lightning.configuration.yaml_files import expand_bases

__all__ = [
    "COMMANDS",
    "check_arguments",
    "check_strategy",
    "describe",
    "expand_bases",
    "help_or_check",
    "needs_checkpoint",
    "unknown_key",
    "with_full_keys",
]
