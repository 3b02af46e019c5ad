"""The frozen layer below an adapter: its shape and its weight, however it stores them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(out_features, in_features) of a linear layer that can take an update of its weight, else None."""
    weight = getattr(module, "weight", None)
    if not isinstance(module, nn.Linear | Conv1D) or weight is None or not weight.is_floating_point():
        return None
    rows, cols = weight.shape
    return (cols, rows) if isinstance(module, Conv1D) else (rows, cols)


def frozen_weight(module: Any) -> Tensor:
    """W of shape (out_features, in_features) of such a layer; a transposed view for Conv1D, which stores W^T."""
    weight: Tensor = module.weight
    return weight.t() if isinstance(module, Conv1D) else weight
