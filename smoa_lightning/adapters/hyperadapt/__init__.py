"""HyperAdapt as a peft tuner; importing this package registers it with peft."""

from __future__ import annotations

from smoa_lightning.adapters.hyperadapt.config import HyperAdaptConfig, HyperAdaptPeftType
from smoa_lightning.adapters.hyperadapt.layer import HyperAdaptLinear
from smoa_lightning.adapters.hyperadapt.model import HyperAdaptModel
from smoa_lightning.adapters.tuner import register

register(HyperAdaptPeftType.HYPERADAPT, HyperAdaptConfig, HyperAdaptModel)

__all__ = ["HyperAdaptConfig", "HyperAdaptLinear", "HyperAdaptModel", "HyperAdaptPeftType"]
