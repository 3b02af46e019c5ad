"""MoRA as a peft tuner; importing this package registers it with peft."""

from __future__ import annotations

from smoa_lightning.adapters.mora.config import MoraConfig, MoraPeftType
from smoa_lightning.adapters.mora.layer import MoraLinear
from smoa_lightning.adapters.mora.model import MoraModel
from smoa_lightning.adapters.tuner import register

register(MoraPeftType.MORA, MoraConfig, MoraModel)

__all__ = ["MoraConfig", "MoraLinear", "MoraModel", "MoraPeftType"]
