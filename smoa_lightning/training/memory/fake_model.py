"""Models of fake tensors: they have shapes, dtypes and a device, but no memory, so that a step costs no arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from smoa_lightning.adapters import attach
from smoa_lightning.adapters.budget import countable
from smoa_lightning.adapters.tuner import BoundLayer
from smoa_lightning.backbones.backbone import BackboneConfig, Location, enable_checkpointing, load_skeleton

DEVICE = "cpu"  # its attention kernel keeps no matrix of attention weights, like those of GPUs


def fake_model(
    config: BackboneConfig, location: Location, adapter: PeftConfig | None, frozen: bool, mode: FakeTensorMode
) -> nn.Module:
    """Build the model of a run with its adapter from fake tensors, in training mode.

    Initial values that need weights or a tokenizer are replaced by random ones; they change no shape.
    """
    config = dataclasses.replace(config, quantization=None)
    network: Any = load_skeleton(config, location)
    network.config.use_cache = False
    network.requires_grad_(adapter is None and not frozen)
    if config.gradient_checkpointing:
        enable_checkpointing(network)
    if adapter is not None:
        network = attach(network, countable(adapter), 0)
    _replace_tensors(network, mode)
    for module in network.modules():
        if isinstance(module, BoundLayer):
            module.assume_prepared()
    model: nn.Module = network.train()
    return model


def _replace_tensors(network: nn.Module, mode: FakeTensorMode) -> None:
    """Replace all parameters and buffers by fake tensors; tied weights stay one tensor."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # the old tensor is kept, so that no other one gets its id
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        made[id(tensor)] = tensor, _fake(tensor, mode)
                    tensors[name] = made[id(tensor)][1]  # type: ignore[assignment]


def _fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    with mode, torch.no_grad():
        fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)
    return nn.Parameter(fake, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake
