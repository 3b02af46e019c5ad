"""The shape and the weight of the frozen layer below an adapter, for every storage format."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.tuner.offloaded import load_tensor
from smoa_lightning.backbones.quantization import dequantized_weight, quantization


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """Return (out_features, in_features) of a linear layer whose weight can be updated, else None."""
    if quantization(module) is not None:
        return int(module.out_features), int(module.in_features)  # type: ignore[arg-type]
    weight = getattr(module, "weight", None)
    if not isinstance(module, nn.Linear | Conv1D) or weight is None or not weight.is_floating_point():
        return None
    rows, cols = weight.shape
    return (cols, rows) if isinstance(module, Conv1D) else (rows, cols)


def stored_weight(module: Any) -> Tensor:
    """Return the weight as the layer stores it; a weight in 8 or 4 bits is dequantised into a new matrix.

    A weight that is divided over processes is gathered; all processes must call this. An offloaded weight is loaded.
    """
    weight: Any = load_tensor(module, "weight") if module.weight.is_meta else module.weight
    if isinstance(weight, DTensor):
        return weight.full_tensor()
    return weight if quantization(module) is None else dequantized_weight(module)
