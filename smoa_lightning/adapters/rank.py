"""The rank of an update, in three readings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters import gram
from smoa_lightning.adapters.tuner import SlotLayer, UpdateLayer
from smoa_lightning.common.errors import UserError


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


def singular_values(delta: Tensor) -> Tensor:
    """Singular values of an update, descending, in float64.

    A float64 matrix is decomposed as it is. Of any other dtype the eigenvalues of the smaller Gram matrix, D D^T or
    D^T D in float64, are taken: several times faster, and off by at most about 1e-7 of the largest singular value,
    which is below the float32 rounding of D itself. 4096 x 14336 takes half a minute and 1 GB on one CPU core.

    Args:
        delta: Matrix of shape (d_out, d_in).

    Raises:
        UserError: An entry is not finite.
    """
    if not torch.isfinite(delta).all():
        raise UserError(f"the update of shape {tuple(delta.shape)} has entries that are not finite, so it has no rank.")
    return torch.linalg.svdvals(delta.detach()) if delta.dtype == torch.float64 else gram.singular_values(delta)


def update_rank(delta: Tensor, rounding: float = 0.0, values: Tensor | None = None) -> UpdateRank:
    """Effective, stable and numerical rank of an update.

    Args:
        delta: Matrix of shape (d_out, d_in); its dtype sets what counts as zero.
        rounding: Singular values up to here are known to be rounding, whatever their share of the largest one.
        values: Its :func:`singular_values`, where they are known.

    Raises:
        UserError: An entry is not finite.

    >>> update_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
    UpdateRank(effective=2.0, stable=2.0, numerical=2)
    """
    values = singular_values(delta) if values is None else values
    largest = float(values.max()) if values.numel() else 0.0
    if largest == 0.0:
        return UpdateRank(effective=0.0, stable=0.0, numerical=0)
    shares = values / values.sum()
    entropy = -torch.special.xlogy(shares, shares).sum()
    threshold = max(rounding, largest * max(delta.shape) * torch.finfo(delta.dtype).eps)
    return UpdateRank(
        effective=round(float(entropy.exp()), 9),
        stable=round(float(values.square().sum() / largest**2), 9),
        numerical=int((values > threshold).sum()),
    )


def layer_update(layer: nn.Module, adapter: str = "default", original: Tensor | None = None) -> Tensor:
    """The additive update W' - W of one adapter at one layer, float32 and of shape (d_out, d_in).

    Layers of ours know it. For any other mergeable layer of peft (LoRA, DoRA, HiRA, ...) it is the merged weight minus
    the base weight, computed in float64 on a stand-in; the layer is left bit for bit as it was.

    Args:
        layer: An adapted layer, not merged.
        adapter: Name of the adapter.
        original: The backbone's own weight, as the layer stores it. An initialisation such as PiSSA's moves the base
            weight; with ``original`` the update is that of the backbone, without it that of the moved weight.

    Raises:
        UserError: The layer is no tuner layer, is merged, or its method cannot be merged.
    """
    if isinstance(layer, SlotLayer):
        raise UserError(
            f"the adapter after {layer.name} is a nonlinear map in the adapter slot: it is no update of a weight, so "
            "it has no rank."
        )
    if not isinstance(layer, BaseTunerLayer):
        raise UserError(f"{type(layer).__name__} is no adapted layer, so it has no update.")
    if layer.merged and not isinstance(layer, UpdateLayer):
        raise UserError(f"the {type(layer).__name__} layer is merged: unmerge it before asking for its update.")
    if isinstance(layer, UpdateLayer):
        delta = layer.get_delta_weight(adapter).detach().float()
    else:
        delta = _merged_minus_base(layer, adapter)
    shift = None if original is None else base_shift(layer, original)
    return delta if shift is None else delta + shift


def is_matrix_layer(layer: Any) -> bool:
    """Whether a layer, adapted or not, has a weight matrix, so that an update of it has a rank."""
    adapted = isinstance(layer, BaseTunerLayer)
    weight = getattr(layer.get_base_layer() if adapted else layer, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2 and (hasattr(layer, "merge") or not adapted)


def base_shift(layer: Any, original: Tensor) -> Tensor | None:
    """How far an adapter's initialisation has moved the base weight, shape (d_out, d_in); None if not at all."""
    base = layer.get_base_layer()
    if not original.is_floating_point():
        return None  # held in 8 or 4 bits: no initialisation moves it
    weight = layer._stored_weight() if isinstance(layer, UpdateLayer) else base.weight
    original = original.to(weight.device)
    if torch.equal(weight, original):
        return None
    shift = (weight.detach().double() - original.double()).float()
    return shift.t().contiguous() if isinstance(base, Conv1D) else shift


def shift_rounding(original: Tensor) -> float:
    """Bound of the spectral norm of what rounding to the weight's dtype adds to a moved base: eps ||W||_F."""
    return float(torch.finfo(original.dtype).eps * torch.linalg.matrix_norm(original.float()))


def _merged_minus_base(layer: Any, adapter: str) -> Tensor:
    base = layer.get_base_layer()
    weight, bias = base.weight, getattr(base, "bias", None)
    if not weight.is_floating_point():
        raise UserError(
            f"the base weight of a {type(layer).__name__} layer is quantised: its update cannot be measured."
        )
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
