"""The rank of an update, in three readings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.smoa import SmoaLinear
from smoa_lightning.errors import UserError


@dataclass(frozen=True)
class UpdateRank:
    """Ranks of one update with singular values s; all are 0 for an update of zero.

    Attributes:
        effective: exp of the entropy of s / sum(s) (Roy and Vetterli 2007): between 1 and min(d_out, d_in).
        stable: sum(s^2) / max(s)^2, the squared Frobenius norm over the squared spectral norm.
        numerical: Number of s above max(s) * max(d_out, d_in) * eps of the update's dtype.
    """

    effective: float
    stable: float
    numerical: int


def update_rank(delta: Tensor) -> UpdateRank:
    """Effective, stable and numerical rank of an update.

    Args:
        delta: Matrix of shape (d_out, d_in); its dtype sets what counts as zero.

    Raises:
        UserError: An entry is not finite.

    >>> update_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
    UpdateRank(effective=2.0, stable=2.0, numerical=2)
    """
    if not torch.isfinite(delta).all():
        raise UserError(f"the update of shape {tuple(delta.shape)} has entries that are not finite, so it has no rank.")
    values = _singular_values(delta.detach())
    largest = float(values.max()) if values.numel() else 0.0
    if largest == 0.0:
        return UpdateRank(effective=0.0, stable=0.0, numerical=0)
    shares = values / values.sum()
    entropy = -torch.special.xlogy(shares, shares).sum()
    threshold = largest * max(delta.shape) * torch.finfo(delta.dtype).eps
    return UpdateRank(
        effective=round(float(entropy.exp()), 9),
        stable=round(float(values.square().sum() / largest**2), 9),
        numerical=int((values > threshold).sum()),
    )


def _singular_values(delta: Tensor) -> Tensor:
    matrix = delta.to(device="cpu" if delta.device.type == "mps" else delta.device, dtype=torch.float64)
    if delta.dtype == torch.float64:
        return torch.linalg.svdvals(matrix)
    # Squaring in float64 keeps every singular value that float32 can tell from zero, at a fraction of the time.
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()


def layer_update(layer: nn.Module, adapter: str = "default") -> Tensor:
    """The additive update W' - W of one adapter at one layer, float32 and of shape (d_out, d_in).

    Layers of ours know it. For any other mergeable layer of peft (LoRA, DoRA, HiRA, ...) it is the merged weight minus
    the base weight, computed in float64 on a stand-in; the layer is left bit for bit as it was.

    Raises:
        UserError: The layer is no tuner layer, is merged, or its method cannot be merged.
    """
    if isinstance(layer, SmoaLinear):
        return layer.get_delta_weight(adapter).float()
    if not isinstance(layer, BaseTunerLayer):
        raise UserError(f"{type(layer).__name__} is no adapted layer, so it has no update.")
    if layer.merged:
        raise UserError(f"the {type(layer).__name__} layer is merged: unmerge it before asking for its update.")
    base: Any = layer.get_base_layer()
    weight, bias = base.weight, getattr(base, "bias", None)
    saved = [(parameter, parameter.data) for parameter in (weight, bias) if isinstance(parameter, Tensor)]
    try:
        weight.data = weight.data.to(torch.float64)
        before = weight.data.clone()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns about merging in general; nothing stays merged here
            layer.merge(adapter_names=[adapter])
            delta = (weight.data - before).float()
            layer.unmerge()
    except (NotImplementedError, AttributeError, ValueError) as error:
        raise UserError(f"a {type(layer).__name__} layer of this peft method cannot be merged: {error}") from error
    finally:
        for parameter, data in saved:
            parameter.data = data
        layer.merged_adapters.clear()
    return delta.t().contiguous() if isinstance(base, Conv1D) else delta
