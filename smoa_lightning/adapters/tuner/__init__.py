"""Shared by all our own tuners: targets and checks of a config, containers of a layer, injection, registration."""

from __future__ import annotations

from enum import Enum

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from smoa_lightning.adapters.tuner.bound import BoundLayer
from smoa_lightning.adapters.tuner.config import TunerConfig
from smoa_lightning.adapters.tuner.frozen import linear_shape
from smoa_lightning.adapters.tuner.layer import AdapterLayer
from smoa_lightning.adapters.tuner.model import AdapterModel
from smoa_lightning.adapters.tuner.other_layers import frozen_weight, update_shape
from smoa_lightning.adapters.tuner.patterns import PatternConfig
from smoa_lightning.adapters.tuner.slot import SlotLayer
from smoa_lightning.adapters.tuner.update import UpdateLayer


def register(peft_type: Enum, config: type[TunerConfig], model: type[AdapterModel]) -> None:
    """Register a method with peft under the single member of its type enum.

    ``peft.register_peft_method`` only fills these dictionaries, but refuses members that are not in peft's own enum.
    """
    PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = config  # type: ignore[index]
    PEFT_TYPE_TO_TUNER_MAPPING[peft_type] = model  # type: ignore[index]
    PEFT_TYPE_TO_PREFIX_MAPPING[peft_type] = model.prefix  # type: ignore[index]


__all__ = [
    "AdapterLayer",
    "AdapterModel",
    "BoundLayer",
    "PatternConfig",
    "SlotLayer",
    "TunerConfig",
    "UpdateLayer",
    "frozen_weight",
    "linear_shape",
    "register",
    "update_shape",
]
