"""Models of fake tensors: they have shapes, dtypes and a device, but no memory, so that a step costs no arithmetic."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from transformers import PreTrainedModel

from smoa_lightning.adapters.budget import countable
from smoa_lightning.adapters.combine import attach_strategy
from smoa_lightning.adapters.tuner import BoundLayer
from smoa_lightning.backbones.backbone import enable_checkpointing, load_skeleton
from smoa_lightning.backbones.heads import new_head
from smoa_lightning.training.module import FineTuneModule

DEVICE = "cpu"  # its attention kernel keeps no matrix of attention weights, like those of GPUs


def meta_model(
    module: FineTuneModule, skeleton: PreTrainedModel | None = None, checkpointing: bool = False
) -> nn.Module:
    """Build the model of a run with its adapter on the meta device.

    Initial values that need weights or a tokenizer are replaced by random ones; they change no shape.

    Args:
        module: The settings of the model, whose budget is resolved.
        skeleton: The backbone on the meta device, which is changed; it is built if it is None.
        checkpointing: Whether to switch on gradient checkpointing before the adapter is attached.

    Raises:
        UserError: The strategy does not fit the backbone.
    """
    network: Any = load_skeleton(module.backbone_config, module.location) if skeleton is None else skeleton
    network.config.use_cache = False
    network.requires_grad_(module.adapter_config is None and not module.frozen_backbone)
    for name in new_head(network):
        network.get_submodule(name).requires_grad_(True)
    if checkpointing:
        enable_checkpointing(network)
    if module.adapter_config is not None:
        prompt = None if module.prompt_config is None else countable(module.prompt_config)
        network = attach_strategy(network, countable(module.adapter_config), prompt, module.adapter_seed)
    model: nn.Module = network
    return model


def fake_copy(network: nn.Module, mode: FakeTensorMode, checkpointing: bool = False) -> nn.Module:
    """Copy a model from the meta device as one of fake tensors, in training mode.

    Args:
        network: The model with its adapter, which is not changed.
        mode: The mode of the fake tensors.
        checkpointing: Whether to switch on gradient checkpointing in the copy.
    """
    copied: Any = copy.deepcopy(network)
    if checkpointing:
        base: Any = copied.get_base_model() if isinstance(copied, PeftModel) else copied
        enable_checkpointing(base)
    _replace_tensors(copied, mode)
    for module in copied.modules():
        if isinstance(module, BoundLayer):
            module.assume_prepared()
    model: nn.Module = copied.train()
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
