"""SURM, structured unrestricted-rank matrices, as a peft tuner; importing this package registers it with peft."""

from __future__ import annotations

from smoa_lightning.adapters.surm.config import SurmConfig, SurmPeftType
from smoa_lightning.adapters.surm.layer import SurmLinear, SurmSlot
from smoa_lightning.adapters.surm.model import SurmModel
from smoa_lightning.adapters.tuner import register

register(SurmPeftType.SURM, SurmConfig, SurmModel)

__all__ = ["SurmConfig", "SurmLinear", "SurmModel", "SurmPeftType", "SurmSlot"]
