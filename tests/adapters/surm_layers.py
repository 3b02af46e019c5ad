"""SURM's layers in a model, and random values for all of their factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from smoa_lightning.adapters import SurmLinear, SurmSlot


def surm_layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, SurmLinear | SurmSlot)]


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for module in surm_layers(model):
        for name in module.adapter_layer_names:
            for parameter in getattr(module, name).values():
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
