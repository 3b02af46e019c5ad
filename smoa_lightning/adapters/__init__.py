"""Adapters: our own peft tuners, registered with peft on import, and helpers for every peft method."""

from __future__ import annotations

from smoa_lightning.adapters.abba import AbbaConfig, AbbaLinear, AbbaModel
from smoa_lightning.adapters.attach import attach, without_adapter
from smoa_lightning.adapters.bottleneck import BottleneckConfig, BottleneckModel, BottleneckSlot
from smoa_lightning.adapters.combine import CombinedModel, attach_both, load_both
from smoa_lightning.adapters.hyperadapt import HyperAdaptConfig, HyperAdaptLinear, HyperAdaptModel
from smoa_lightning.adapters.inspect import AdaptedLayer, adapted_layers, adapter_bytes
from smoa_lightning.adapters.kradapter import KRAdapterConfig, KRAdapterLinear, KRAdapterModel
from smoa_lightning.adapters.mora import MoraConfig, MoraLinear, MoraModel
from smoa_lightning.adapters.rank import UpdateRank, layer_update, update_rank
from smoa_lightning.adapters.smoa import SMoAConfig, SmoaLinear, SmoaModel
from smoa_lightning.adapters.surm import SurmConfig, SurmLinear, SurmModel, SurmSlot
from smoa_lightning.adapters.targets import resolve_targets

__all__ = [
    "AbbaConfig",
    "AbbaLinear",
    "AbbaModel",
    "AdaptedLayer",
    "BottleneckConfig",
    "BottleneckModel",
    "BottleneckSlot",
    "CombinedModel",
    "HyperAdaptConfig",
    "HyperAdaptLinear",
    "HyperAdaptModel",
    "KRAdapterConfig",
    "KRAdapterLinear",
    "KRAdapterModel",
    "MoraConfig",
    "MoraLinear",
    "MoraModel",
    "SMoAConfig",
    "SmoaLinear",
    "SmoaModel",
    "SurmConfig",
    "SurmLinear",
    "SurmModel",
    "SurmSlot",
    "UpdateRank",
    "adapted_layers",
    "adapter_bytes",
    "attach",
    "attach_both",
    "layer_update",
    "load_both",
    "resolve_targets",
    "update_rank",
    "without_adapter",
]
