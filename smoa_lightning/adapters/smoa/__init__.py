"""The SMoA family as a peft tuner; importing this package registers it with peft."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from smoa_lightning.adapters.smoa.config import SMoAConfig, SmoaPeftType
from smoa_lightning.adapters.smoa.layer import SmoaLinear
from smoa_lightning.adapters.smoa.model import SmoaModel

# peft.register_peft_method takes members of peft's own enum only; all it does is to fill these dictionaries.
PEFT_TYPE_TO_CONFIG_MAPPING[SmoaPeftType.SMOA] = SMoAConfig  # type: ignore[index]
PEFT_TYPE_TO_TUNER_MAPPING[SmoaPeftType.SMOA] = SmoaModel  # type: ignore[index]
PEFT_TYPE_TO_PREFIX_MAPPING[SmoaPeftType.SMOA] = SmoaModel.prefix  # type: ignore[index]

__all__ = ["SMoAConfig", "SmoaLinear", "SmoaModel", "SmoaPeftType"]
