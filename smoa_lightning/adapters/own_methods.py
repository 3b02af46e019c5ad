"""A trial of the layers of a user's own method, before a run does any work."""

from __future__ import annotations

import logging
from typing import Any

import torch
from peft import PeftModel

from smoa_lightning.adapters.tuner import BoundLayer, UpdateLayer
from smoa_lightning.common.errors import UserError, one_line

logger = logging.getLogger(__name__)


def try_own_layers(model: PeftModel) -> None:
    """Refuse layers of a method outside of this package whose update or product has a wrong shape.

    One layer is tried, and no weight of the backbone is read. An update that is not zero at the start is logged as a
    warning, since training would not start at the base model.

    Args:
        model: The adapted model, on any device, meta included.

    Raises:
        UserError: A shape is wrong; the message names the class, the layer and both shapes.
    """
    layers = [module for module in model.modules() if isinstance(module, UpdateLayer) and _is_own(module)]
    if not layers:
        return
    layer = min(layers, key=lambda each: (each.out_features == each.in_features, each.out_features * each.in_features))
    (adapter, *_), name = layer.own_adapters(), type(layer).__name__
    with torch.no_grad():
        update = layer.checked_update(adapter)
        if not update.is_meta and update.any():
            logger.warning(
                "%s has an effect before training: the update of layer %s has norm %.3g. Choose initial_parameters "
                "with an update of zero, so that training starts at the base model",
                name,
                layer.name,
                float(update.norm()),
            )
        if type(layer).product is UpdateLayer.product:  # the method has a forward of its own
            return
        inputs = torch.ones(2, layer.in_features, dtype=update.dtype, device=update.device)
        what = f"for inputs of shape {(2, layer.in_features)} at layer {layer.name}"
        try:
            shape = tuple(layer.product(inputs, adapter).shape)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{name}.product fails {what}: {one_line(error)}") from error
    if shape != (2, layer.out_features):
        raise UserError(f"{name}.product returns shape {shape} {what}, but must return {(2, layer.out_features)}")


def _is_own(layer: Any) -> bool:
    """Whether a linear layer is of a class outside of this package whose update does not depend on the weight."""
    return (
        layer.is_linear
        and not isinstance(layer, BoundLayer)
        and not type(layer).__module__.startswith("smoa_lightning.")
    )
