"""Which trained tensors the first step does not reach: an adapter there does nothing."""

from __future__ import annotations

import logging

import lightning as L
from peft import PeftModel
from torch import nn

logger = logging.getLogger(__name__)

PREFIX = "base_model.model."  # of peft


def tensors_without_gradient(network: nn.Module) -> list[str]:
    """Return the names of the trainable tensors without a gradient, in the order of the model.

    A gradient of zeros, such as that of LoRA's A while B is zero, is a gradient.
    """
    return [
        name.removeprefix(PREFIX)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]


def warn_of_idle_tensors(network: nn.Module, trainer: L.Trainer) -> None:
    """Warn if trainable tensors have no gradient after the backward pass of the first step, in the first process.

    This is no error: an expert of a mixture that no token chose, or a layer that was dropped at random, may be reached
    later.
    """
    if trainer.global_step > 0 or not trainer.is_global_zero:
        return
    names = tensors_without_gradient(network)
    if names:
        of_adapter = isinstance(network, PeftModel) and "modules_to_save" not in names[0]
        logger.warning(
            "%d trained tensors got no gradient in the first step, such as %s: if the model does not use it for these "
            "rows, training does not change it%s",
            len(names),
            names[0],
            "; exclude_modules leaves layers out of an adapter" if of_adapter else "",
        )
