"""Weighted sums of SURM's updates: exact for circulants, T(b o a) and ldr; the nearest Kronecker product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smoa_lightning.adapters.tuner.weighted import refuse_rank_patterns, refuse_sum, require_equal

if TYPE_CHECKING:
    from smoa_lightning.adapters.surm.layer import SurmLinear

EXACT = ("circulant", "toeplitz_hadamard", "ldr")


def become_sum(config: Any, configs: Sequence[Any], kind: str) -> None:
    """Change a copy of the first config to that of the sum, with s = 1; the terms of ``ldr`` are summed.

    Raises:
        UserError: The structure has no such sum, or the adapters differ in it.
    """
    require_equal(configs, ("structure", "slot", "block_size", "kronecker_rank"))
    if config.slot == "adapter":
        refuse_sum(config, kind, "the adapter slot is a nonlinear map")
    possible = "linear" if config.structure in EXACT else "svd" if config.structure == "kronecker" else None
    if kind != possible:
        structure = f"structure {config.structure!r}"
        refuse_sum(config, kind, f"{structure} has {possible!r}" if possible else f"sums of {structure} are not of it")
    refuse_rank_patterns(configs)
    config.alpha = config.alpha_pattern = None
    config.alpha_over_rank = False
    config.displacement_rank = sum(each.displacement_rank for each in configs) if config.structure == "ldr" else 1


@torch.no_grad()
def set_to_sum(layer: SurmLinear, adapter: str, weights: dict[str, float]) -> None:
    """Set the factors of an adapter so that its update is the weighted sum, or the nearest Kronecker product."""
    structure = layer.configs[adapter].structure
    left, right = layer.surm_left[adapter], layer.surm_right[adapter]
    left.zero_()
    factors = [(weight * layer.scaled_left(name), layer.surm_right[name]) for name, weight in weights.items()]
    if structure == "ldr":
        done = 0
        for first, second in factors:
            terms = slice(done, done + first.shape[2])
            left[:, :, terms], right[:, :, terms] = first, second
            done = terms.stop
    elif structure == "kronecker":
        _nearest_product(left, right, factors)
    else:
        right.fill_(1)
        for first, second in factors:
            left += first * second


def _nearest_product(left: Tensor, right: Tensor, factors: list[tuple[Tensor, Tensor]]) -> None:
    """Set left and right to the nearest ``B (x) A`` of ``sum_i B_i (x) A_i`` in every tile (Van Loan and Pitsianis).

    Rearranged, a Kronecker product is the outer product of the two flattened factors, so that the nearest one is the
    leading term of a singular value decomposition.
    """
    if not factors:
        return
    rearranged = sum(B.double().flatten(2).unsqueeze(-1) * A.double().flatten(2).unsqueeze(-2) for B, A in factors)
    U, S, Vh = torch.linalg.svd(rearranged, full_matrices=False)
    root = S[..., :1].sqrt()
    left.copy_((U[..., 0] * root).view(left.shape))
    right.copy_((Vh[..., 0, :] * root).view(right.shape))
