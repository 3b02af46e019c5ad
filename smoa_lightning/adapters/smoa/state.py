"""The state of one adapter in one layer: its initial factors and its frozen buffers."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor, nn

from smoa_lightning.adapters.smoa import subspaces
from smoa_lightning.adapters.smoa.config import BLOCK_PARTITIONS, SMoAConfig
from smoa_lightning.common.errors import UserError

FROZEN_STATE = ("smoa_row_order", "smoa_col_order", "smoa_cut_points", "smoa_noise_seed", "smoa_fingerprint")


def initial_factors(
    config: SMoAConfig, out_features: int, in_features: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return A, Kaiming-uniform(a = sqrt 5) with the fan-in of each block, and B, zero. Always drawn on the CPU."""
    ranks, shapes = config.ranks, config.block_shapes(out_features, in_features)
    blocks = [_kaiming(rank, cols, dtype) for rank, (_, cols) in zip(ranks, shapes, strict=True)]
    if config.partition in ("none", "spectral_energy"):
        return torch.cat(blocks), torch.zeros(out_features, sum(ranks), dtype=dtype)
    # Blocks are stored one after another; blocks of equal width form a matrix, which is easier to read.
    equal_width = len({cols for _, cols in shapes}) == 1
    A = torch.cat(blocks if equal_width else [block.reshape(-1) for block in blocks])
    B = torch.zeros(sum(rank * rows for rank, (rows, _) in zip(ranks, shapes, strict=True)), dtype=dtype)
    return A, B.view(-1, ranks[0]) if len(set(ranks)) == 1 else B


def _kaiming(rank: int, fan_in: int, dtype: torch.dtype) -> Tensor:
    block = torch.empty(rank, fan_in, dtype=dtype, device="cpu")
    nn.init.kaiming_uniform_(block, a=math.sqrt(5))
    return block


def blank_state(config: SMoAConfig, out_features: int, in_features: int, seed: int) -> dict[str, Tensor]:
    """Return the buffers of a new adapter, without its fingerprint; all but the noise seed are filled at first use."""
    state: dict[str, Tensor] = {}
    if config.partition in BLOCK_PARTITIONS:
        state["smoa_row_order"] = torch.full((out_features,), subspaces.UNSET, dtype=torch.int32)
        state["smoa_col_order"] = torch.full((in_features,), subspaces.UNSET, dtype=torch.int32)
    if config.partition == "spectral_energy" and config.num_subspaces > 1:
        state["smoa_cut_points"] = torch.full((config.num_subspaces - 1,), subspaces.UNSET, dtype=torch.int32)
    if config.modulation == "random":
        state["smoa_noise_seed"] = torch.tensor([seed], dtype=torch.int64)
    return state


def layer_seed(seed: int, name: str) -> int:
    """Return a seed for one layer, so that layers of one shape have different noise."""
    return zlib.crc32(f"{seed}/{name}".encode())


def check_permutation(order: Tensor, what: str) -> None:
    """Raise a UserError unless an order holds every index exactly once."""
    if not subspaces.is_permutation(order):
        raise UserError(f"{what} is damaged: it must hold every index from 0 to {order.numel() - 1} exactly once.")
