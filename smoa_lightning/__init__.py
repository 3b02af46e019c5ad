"""smoa_lightning: high-rank parameter-efficient fine-tuning under one matched protocol.

Public names are loaded at first use, so that importing the package is fast. Once peft is imported as well, it knows the
methods of this package: ``PeftModel.from_pretrained`` loads their adapters.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from smoa_lightning.common.peft_hook import register_with_peft
from smoa_lightning.version import __version__

# peft imports bitsandbytes if it is installed; bitsandbytes then recommends a package for inference on some CPUs.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_MODULE_OF = {
    "FineTuneModule": "smoa_lightning.training.module",
    "TaskDataModule": "smoa_lightning.data.datamodule",
    "SMoAConfig": "smoa_lightning.adapters",
    "load_adapter": "smoa_lightning.training.adapter_folder",
    "UserError": "smoa_lightning.common.errors",
}

__all__ = ["FineTuneModule", "SMoAConfig", "TaskDataModule", "UserError", "__version__", "load_adapter"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


register_with_peft()
