"""KRAdapter as a peft tuner; importing this package registers it with peft."""

from __future__ import annotations

from smoa_lightning.adapters.kradapter.config import KRAdapterConfig, KRAdapterPeftType
from smoa_lightning.adapters.kradapter.layer import KRAdapterLinear
from smoa_lightning.adapters.kradapter.model import KRAdapterModel
from smoa_lightning.adapters.tuner import register

register(KRAdapterPeftType.KRADAPTER, KRAdapterConfig, KRAdapterModel)

__all__ = ["KRAdapterConfig", "KRAdapterLinear", "KRAdapterModel", "KRAdapterPeftType"]
