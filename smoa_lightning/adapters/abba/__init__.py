"""ABBA as a peft tuner; importing this package registers it with peft."""

from __future__ import annotations

from smoa_lightning.adapters.abba.config import AbbaConfig, AbbaPeftType
from smoa_lightning.adapters.abba.layer import AbbaLinear
from smoa_lightning.adapters.abba.model import AbbaModel
from smoa_lightning.adapters.tuner import register

register(AbbaPeftType.ABBA, AbbaConfig, AbbaModel)

__all__ = ["AbbaConfig", "AbbaLinear", "AbbaModel", "AbbaPeftType"]
