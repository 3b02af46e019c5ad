"""Bottleneck adapters as a peft tuner; importing this package registers it with peft."""

from __future__ import annotations

from smoa_lightning.adapters.bottleneck.config import BottleneckConfig, BottleneckPeftType
from smoa_lightning.adapters.bottleneck.layer import BottleneckSlot
from smoa_lightning.adapters.bottleneck.model import BottleneckModel
from smoa_lightning.adapters.tuner import register

register(BottleneckPeftType.BOTTLENECK, BottleneckConfig, BottleneckModel)

__all__ = ["BottleneckConfig", "BottleneckModel", "BottleneckPeftType", "BottleneckSlot"]
