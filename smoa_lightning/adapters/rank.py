"""Three measures of the rank of an update."""

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
    """Ranks of one update with singular values s; all ranks of a zero update are 0.

    Attributes:
        effective: exp of the entropy of s / sum(s) (Roy and Vetterli 2007): between 1 and min(d_out, d_in).
        stable: sum(s^2) / max(s)^2, the squared Frobenius norm over the squared spectral norm.
        numerical: Number of s above max(s) * max(d_out, d_in) * eps, with eps of float64 for a float64 update, else of
            float32: with the eps of bfloat16, 2^-7, no s of an update with a side of 128 would count.
    """

    effective: float
    stable: float
    numerical: int


def singular_values(delta: Tensor, bound: int | None = None) -> Tensor:
    """Return the singular values of an update D, descending, in float64.

    A float64 matrix is decomposed as it is. For any other dtype they come from the eigenvalues of the smaller Gram
    matrix, D D^T or D^T D in float64. That is several times faster, with an error of at most about 1e-7 of the largest
    value, below the float32 rounding of D. A matrix of 4096 x 14336 takes half a minute and 1 GB on one CPU core. A
    matrix of low rank, such as the update of a LoRA, takes a tenth of this.

    Args:
        delta: Matrix of shape (d_out, d_in).
        bound: Largest rank that D can have, if it is known. A D of higher rank costs time, and changes nothing else.

    Raises:
        UserError: An entry is not finite.
    """
    if not torch.isfinite(delta).all():
        raise UserError(f"the update of shape {tuple(delta.shape)} has entries that are not finite, so it has no rank.")
    if delta.dtype == torch.float64:
        dense: Tensor = torch.linalg.svdvals(delta.detach())
        return dense
    values = None if bound is None else gram.low_rank_singular_values(delta, bound)
    return gram.singular_values(delta) if values is None else values


def update_rank(delta: Tensor, rounding: float = 0.0, values: Tensor | None = None) -> UpdateRank:
    """Return the effective, stable and numerical rank of an update.

    Args:
        delta: Matrix of shape (d_out, d_in); float64 sets a smaller threshold of the numerical rank.
        rounding: Singular values up to this size are rounding errors, and do not count in the numerical rank.
        values: Its :func:`singular_values`, if they are known.

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
    eps = min(torch.finfo(delta.dtype).eps, torch.finfo(torch.float32).eps)
    threshold = max(rounding, largest * max(delta.shape) * eps)
    return UpdateRank(
        effective=round(float(entropy.exp()), 9),
        stable=round(float(values.square().sum() / largest**2), 9),
        numerical=int((values > threshold).sum()),
    )


def layer_update(layer: nn.Module, adapter: str = "default", original: Tensor | None = None) -> Tensor:
    """Return the additive update W' - W of one adapter at one layer, float32 and of shape (d_out, d_in).

    Our own layers compute it. For any other mergeable layer of peft (LoRA, DoRA, HiRA, ...) it is the merged weight
    minus the base weight, in float64. The layer is restored bit for bit.

    Args:
        layer: An adapted layer, not merged.
        adapter: Name of the adapter.
        original: The weight of the base model, as the layer stores it. Initialisations such as PiSSA change the base
            weight. With ``original`` the update is relative to it, otherwise relative to the changed weight.

    Raises:
        UserError: The layer is not a tuner layer, is merged, or its method cannot be merged.
    """
    if isinstance(layer, SlotLayer):
        raise UserError(
            f"the adapter after {layer.name} is a nonlinear map in the adapter slot: it does not update a weight, so "
            "it has no rank."
        )
    if not isinstance(layer, BaseTunerLayer):
        raise UserError(f"{type(layer).__name__} is not an adapted layer, so it has no update.")
    if layer.merged and not isinstance(layer, UpdateLayer):
        raise UserError(f"the {type(layer).__name__} layer is merged: unmerge it before you compute its update.")
    if isinstance(layer, UpdateLayer):
        delta = layer.checked_update(adapter).detach().float()
    else:
        delta = _merged_minus_base(layer, adapter)
    shift = None if original is None else base_shift(layer, original)
    return delta if shift is None else delta + shift


def is_matrix_layer(layer: Any) -> bool:
    """Whether a layer, adapted or not, has a weight matrix, so that its update has a rank."""
    adapted = isinstance(layer, BaseTunerLayer)
    weight = getattr(layer.get_base_layer() if adapted else layer, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2 and (hasattr(layer, "merge") or not adapted)


def base_shift(layer: Any, original: Tensor) -> Tensor | None:
    """Return the change of the base weight by an adapter's initialisation, (d_out, d_in); None for no change."""
    base = layer.get_base_layer()
    if not original.is_floating_point():
        return None  # no initialisation changes a weight in 8 or 4 bits
    weight = layer._stored_weight() if isinstance(layer, UpdateLayer) else base.weight
    original = original.to(weight.device)
    if torch.equal(weight, original):
        return None
    shift = (weight.detach().double() - original.double()).float()
    return shift.t().contiguous() if isinstance(base, Conv1D) else shift


def shift_rounding(original: Tensor) -> float:
    """Return eps ||W||_F, a bound of the spectral norm of rounding errors in a changed base weight."""
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
            warnings.simplefilter("ignore")  # peft warns about merging; here the layer is unmerged again
            layer.merge(adapter_names=[adapter])
            delta: Tensor = (weight.data - before).float()
            layer.unmerge()
    except (NotImplementedError, AttributeError, ValueError) as error:
        raise UserError(f"a {type(layer).__name__} layer of this peft method cannot be merged: {error}") from error
    finally:
        for parameter, data in saved:
            parameter.data = data
        layer.merged_adapters.clear()
    return delta.t().contiguous() if isinstance(base, Conv1D) else delta
