"""Weighted sums of SMoA's updates: exact with summed ranks, or a truncated decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smoa_lightning.adapters.tuner.weighted import refuse_rank_patterns, refuse_sum, require_equal, truncated_sum
from smoa_lightning.common.errors import UserError

if TYPE_CHECKING:
    from smoa_lightning.adapters.smoa.layer import SmoaLinear


def become_sum(config: Any, configs: Sequence[Any], kind: str, svd_rank: int | None) -> None:
    """Change a copy of the first config to that of the sum, with s = 1.

    ``linear`` keeps the partition; the ranks of every subspace are summed. ``svd`` gives a LoRA: ``partition: none``
    without modulation, of rank ``svd_rank``.

    Raises:
        UserError: The adapters differ in a setting that decides the subspaces or the modulation.
    """
    if kind not in ("linear", "svd"):
        refuse_sum(config, kind, "it has 'linear' and 'svd'")
    refuse_rank_patterns(configs)
    config.alpha = config.alpha_pattern = config.branch_ranks = None
    if kind == "svd":
        config.r = svd_rank or max(each.r for each in configs)
        config.partition, config.num_subspaces, config.modulation, config.rank_split = "none", 1, "none", "total"
        return
    require_equal(configs, ("partition", "num_subspaces", "modulation", "energy", "rank_split"))
    if config.modulation == "random" or config.partition == "random_blocks":
        require_equal(configs, ("seed",))
    ranks = [sum(parts) for parts in zip(*(each.ranks for each in configs), strict=True)]
    config.r = sum(each.r for each in configs)
    if config.partition != "grid_blocks":
        config.branch_ranks = ranks
    elif list(config.ranks) != ranks:
        raise UserError(
            "add_weighted_adapter: ranks of a grid that num_subspaces does not divide cannot be summed: use 'svd'."
        )


@torch.no_grad()
def set_to_sum(layer: SmoaLinear, adapter: str, weights: dict[str, float], kind: str) -> None:
    """Set A and B of an adapter so that its update is the weighted sum (``linear``) or near it (``svd``)."""
    if kind == "svd":
        A, B = truncated_sum(layer, weights, layer.configs[adapter].r)
        _copy(layer.smoa_A[adapter], A)
        _copy(layer.smoa_B[adapter], B)
        return
    first = next(iter(weights), None)
    for name in weights:
        layer.prepare(name)
    for state in layer.frozen_state:
        container = getattr(layer, state)
        for name in weights:
            if name in container and not torch.equal(container[name], container[first]):
                raise UserError(
                    f"add_weighted_adapter: {state} of layer {layer.name} differs between {first!r} and {name!r}, so "
                    "that their updates are in different subspaces: use combination_type 'svd'."
                )
        if first in container:
            container[adapter].copy_(container[first])
    layer.forget(adapter)
    done = [0] * len(layer.factors(adapter))
    for _, B in layer.factors(adapter):
        B.zero_()
    for name, weight in weights.items():
        scale = weight * layer.configs[name].scaling
        for k, ((A_sum, B_sum), (A, B)) in enumerate(zip(layer.factors(adapter), layer.factors(name), strict=True)):
            ranks = slice(done[k], done[k] + A.shape[0])
            A_sum[ranks] = A
            B_sum[:, ranks] = scale * B
            done[k] += A.shape[0]


def _copy(parameter: Tensor, values: Tensor) -> None:
    parameter.copy_(values.view(parameter.shape))
