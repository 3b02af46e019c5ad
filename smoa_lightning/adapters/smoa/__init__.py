"""The SMoA family as a peft tuner; importing this package registers it with peft."""

from __future__ import annotations

from smoa_lightning.adapters.smoa.config import SMoAConfig, SmoaPeftType
from smoa_lightning.adapters.smoa.layer import SmoaLinear
from smoa_lightning.adapters.smoa.model import SmoaModel
from smoa_lightning.adapters.tuner import register

register(SmoaPeftType.SMOA, SMoAConfig, SmoaModel)

__all__ = ["SMoAConfig", "SmoaLinear", "SmoaModel", "SmoaPeftType"]
