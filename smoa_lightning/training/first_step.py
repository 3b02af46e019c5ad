"""What the first step shows: trained tensors that it does not reach, or whose number format loses small steps."""

from __future__ import annotations

import logging

import lightning as L
import torch
from peft import PeftModel
from torch import nn

logger = logging.getLogger(__name__)

PREFIX = "base_model.model."  # of peft
SAVED = "modules_to_save"  # part of the names of heads and other modules that peft trains in full


def tensors_without_gradient(network: nn.Module) -> list[str]:
    """Return the names of the trainable tensors without a gradient, in the order of the model.

    A gradient of zeros, such as that of LoRA's A while B is zero, is a gradient.
    """
    return [
        name.removeprefix(PREFIX)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]


def adapter_is_stuck(network: nn.Module) -> bool:
    """Whether all gradients of an adapter are zero, as with a scale of 0: training would not change its output."""
    if not isinstance(network, PeftModel):
        return False
    trained = (p for name, p in network.named_parameters() if p.requires_grad and SAVED not in name)
    gradients = [p.grad for p in trained if p.grad is not None]
    return bool(gradients) and not any(bool(gradient.any()) for gradient in gradients)


def tensors_in_half_precision(network: nn.Module) -> list[str]:
    """Return the names of the trainable tensors in float16 or bfloat16, in the order of the model."""
    half = torch.float16, torch.bfloat16
    return [name.removeprefix(PREFIX) for name, p in network.named_parameters() if p.requires_grad and p.dtype in half]


def warn_in_first_step(network: nn.Module, trainer: L.Trainer) -> None:
    """Warn of trainable tensors without a gradient, or in half precision, after the backward pass of the first step.

    No gradient is no error: an expert of a mixture that no token chose, or a layer that was dropped at random, may be
    reached later. Nor are gradients that are all zero: a student may begin equal to its teacher.
    """
    if trainer.global_step > 0:
        return
    names = tensors_without_gradient(network)
    stuck = adapter_is_stuck(network)  # in all processes, since gradients may be shared out
    if not trainer.is_global_zero:
        return
    if half := tensors_in_half_precision(network):
        logger.warning(
            "%d trained tensors are in half precision, such as %s: steps below its rounding are lost; "
            "model.backbone.dtype float32 with trainer.precision bf16-mixed keeps them",
            len(half),
            half[0],
        )
    if names:
        of_adapter = isinstance(network, PeftModel) and SAVED not in names[0]
        logger.warning(
            "%d trained tensors got no gradient in the first step, such as %s: if the model does not use it for these "
            "rows, training does not change it%s",
            len(names),
            names[0],
            "; exclude_modules leaves layers out of an adapter" if of_adapter else "",
        )
    elif stuck:
        logger.warning(
            "all gradients of the adapter are zero in the first step: if they stay zero, the adapter learns nothing; "
            "the cause may be one of its settings, such as a scale of 0"
        )
