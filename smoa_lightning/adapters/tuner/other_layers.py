"""Embeddings and convolutions below an update: their weight as a matrix, and the product with an update of it.

The matrix of an ``nn.Embedding`` is W (d x V), whose column is the vector of a token, so that the layer is x W^T for a
one-hot x. The matrix of an ``nn.Conv2d`` is W (d_out x d_in k_h k_w), or d_in / groups, whose rows are the flattened
kernels. An update has the shape of W, and is applied as the layer applies W.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.tuner.frozen import linear_shape, stored_weight


def update_shape(module: nn.Module) -> tuple[int, int] | None:
    """Return (d_out, d_in) of the weight matrix of a linear layer, an embedding or a convolution, else None.

    Embeddings and convolutions count if their class keeps the forward of torch, or is a scaled embedding of
    transformers. An embedding with ``max_norm`` changes its weight in the forward and does not count. Neither does one
    with a further parameter, such as a vector that replaces that of a token.
    """
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Embedding):
        scaled = hasattr(module, "embed_scale") and len(module._parameters) == 1
        plain = type(module).forward is nn.Embedding.forward or scaled
        if plain and module.max_norm is None and weight is not None and weight.is_floating_point():
            return module.embedding_dim, module.num_embeddings
        return None
    if isinstance(module, nn.Conv2d):
        if type(module).forward is nn.Conv2d.forward and weight is not None and weight.is_floating_point():
            return weight.shape[0], weight[0].numel()
        return None
    return linear_shape(module)


def as_matrix(module: nn.Module, stored: Tensor) -> Tensor:
    """Return a stored weight as W of shape (d_out, d_in), a view."""
    if isinstance(module, Conv1D | nn.Embedding):
        return stored.t()
    return stored.flatten(1) if isinstance(module, nn.Conv2d) else stored


def as_stored(module: nn.Module, matrix: Tensor) -> Tensor:
    """Return a matrix of shape (d_out, d_in) in the form in which the layer stores its weight, a view."""
    if isinstance(module, Conv1D | nn.Embedding):
        return matrix.t()
    return matrix.reshape(module.weight.shape) if isinstance(module, nn.Conv2d) else matrix


def product_with_update(module: Any, update: Tensor, x: Tensor) -> Tensor:
    """Return what an embedding or a convolution adds to its output if its weight matrix gets an update.

    Args:
        module: The frozen layer.
        update: D of shape (d_out, d_in), in the dtype of the output.
        x: Token ids, or feature maps.
    """
    stored = as_stored(module, update)
    if isinstance(module, nn.Embedding):
        rows = F.embedding(x, stored, module.padding_idx)
        scale = getattr(module, "embed_scale", None)
        scale = scale.to(rows.dtype) if isinstance(scale, Tensor) else scale  # XGLM and BioGPT have a float
        return rows if scale is None else rows * scale
    result: Tensor = module._conv_forward(x, stored, None)
    return result


def frozen_weight(module: Any) -> Tensor:
    """Return W of shape (d_out, d_in); a transposed view for a layer that stores W^T."""
    return as_matrix(module, stored_weight(module))
