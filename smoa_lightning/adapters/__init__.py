"""Adapters: our own peft tuners, registered with peft on import, and helpers that serve every peft method."""

from __future__ import annotations

from smoa_lightning.adapters.attach import attach
from smoa_lightning.adapters.inspect import AdaptedLayer, adapted_layers, adapter_bytes
from smoa_lightning.adapters.rank import UpdateRank, layer_update, update_rank
from smoa_lightning.adapters.smoa import SMoAConfig, SmoaLinear, SmoaModel
from smoa_lightning.adapters.targets import resolve_targets

__all__ = [
    "AdaptedLayer",
    "SMoAConfig",
    "SmoaLinear",
    "SmoaModel",
    "UpdateRank",
    "adapted_layers",
    "adapter_bytes",
    "attach",
    "layer_update",
    "resolve_targets",
    "update_rank",
]
