"""Linear layers that a model never calls, since it reads their weight itself: an adapter there would do nothing."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.inspect import adapted_layers
from smoa_lightning.common.errors import UserError

logger = logging.getLogger(__name__)


def idle_layers(model: Any, pixels: tuple[int, int, int]) -> set[str]:
    """Return the linear layers that are not called when a model reads an image; none if the trial fails.

    timm's BEiT, EVA and Swin v2 multiply with the weight of ``qkv`` themselves where its bias lacks the keys.

    Args:
        model: A model on the meta device, without an adapter.
        pixels: Channels, height and width of an image.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    called: set[str] = set()
    hooks = [m.register_forward_hook(lambda *_, name=name: called.add(name)) for name, m in linear.items()]
    image = torch.empty(1, *pixels, dtype=model.dtype, device="meta")
    try:
        with torch.no_grad():
            model.eval()(pixel_values=image)
    except Exception as error:  # what a model raises for tensors without values has no common class
        logger.debug("layers that are not called are not known: %s: %s", type(error).__name__, error)
        return set()
    finally:
        for hook in hooks:
            hook.remove()
    return linear.keys() - called


def check_not_idle(network: PeftModel, idle: Collection[str]) -> None:
    """Refuse an adapter on a layer that is never called.

    Raises:
        UserError: The message names the layer.
    """
    name = next((layer.name for layer in adapted_layers(network) if layer.name in idle), None)
    if name is not None:
        raise UserError(
            f"target_modules matches {name}, but the model reads the weight of this layer itself and never calls it, "
            "so an adapter there would do nothing: name it in exclude_modules"
        )
