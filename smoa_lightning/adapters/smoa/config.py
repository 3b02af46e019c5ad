"""The configuration of the SMoA family: one equation with three switches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import product
from typing import Any, Literal

from smoa_lightning.adapters.smoa.subspaces import near_equal_sizes
from smoa_lightning.adapters.smoa.weighted_sum import become_sum
from smoa_lightning.adapters.tuner import PatternConfig
from smoa_lightning.common.errors import UserError

Partition = Literal["none", "spectral_energy", "spectral_blocks", "contiguous_blocks", "random_blocks", "grid_blocks"]
Modulation = Literal["weight", "none", "random"]
RankSplit = Literal["total", "per_subspace"]
Energy = Literal["l1", "l2", "count"]
Forward = Literal["merged", "split"]
Bias = Literal["none", "all", "smoa_only"]

# Blocks on the diagonal after a reordering of rows and columns; the tiles of grid_blocks cover the whole matrix.
BLOCK_PARTITIONS: tuple[str, ...] = ("spectral_blocks", "contiguous_blocks", "random_blocks")


class SmoaPeftType(str, Enum):  # noqa: UP042  (peft takes the name from "Class.NAME")
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    SMOA = "SMOA"


@dataclass
class SMoAConfig(PatternConfig):
    r"""Structured modulation adapters: ``W' = W + s * sum_k P_k[(B_k A_k) o M_k]``.

    W (d_out x d_in) is frozen, o is the elementwise product, and s = alpha / r. The three switches are ``partition``,
    ``num_subspaces`` and ``modulation``. Corner cases of partition + modulation: ``none`` + ``weight`` is HiRA
    (OpenReview TwJrTz9cRS), ``none`` + ``none`` is LoRA (arXiv 2106.09685), ``contiguous_blocks`` + ``none`` is MELoRA
    (arXiv 2402.17263), ``grid_blocks`` + ``weight`` is BHRA (arXiv 2509.21637), ``grid_blocks`` + ``none`` is GraLoRA
    (arXiv 2505.20355). Sources: arXiv 2601.07507 (``spectral_energy``) and arXiv 2605.21147 (``spectral_blocks``).

    Args:
        r: Rank. With ``rank_split: total`` it is the sum over all subspaces (in ``grid_blocks`` over each row and each
            column of tiles), with ``per_subspace`` the rank of each subspace.
        num_subspaces: K, the number of subspaces; 1 for ``partition: none``, K x K tiles for ``grid_blocks``.
        partition: ``none`` makes no partition; ``spectral_energy`` partitions the singular directions. The other values
            partition rows and columns: after a spectral reordering (``spectral_blocks``), in their own order
            (``contiguous_blocks``) or shuffled (``random_blocks``). Part k of the rows goes with part k of the columns.
            In ``grid_blocks`` (own order) every part of the rows goes with every part of the columns.
        modulation: Factor of the low-rank product: the frozen weight, nothing, or seeded uniform noise.
        alpha: The update is scaled by alpha / r; absent means alpha = r, so that the scale is 1.
        dropout: Dropout probability of the update's inputs in training; 0 gives one GEMM for each layer.
        rank_split: ``total`` shares r among the subspaces (the first r % K subspaces get one more), ``per_subspace``
            gives r to each. In a grid the remainder is spread so that each row and each column of tiles has r in total.
        branch_ranks: The rank of each subspace; must sum to r with ``rank_split: total``. Not for ``grid_blocks``.
        energy: ``spectral_energy`` gives each subspace an equal share of the sum of singular values (``l1``), of the
            sum of their squares (``l2``) or of their number (``count``).
        seed: Seed of the orders of ``random_blocks`` and of the noise of ``modulation: random``.
        forward: ``merged`` multiplies with W + s D in the dtype of W, the matrix that a merge writes. ``split`` adds
            x (s D)^T to x W^T, with one more product in forward and one more in backward. In 16 bits, ``merged`` loses
            most of an update of about 1e-3 of W, and ``split`` loses as little as peft's HiRA. Both lose smaller
            updates, which need float32 (docs/speed.md). In float32 the two differ in the last digits only.
        bias: The trained biases: none, all of the model, or those of the adapted layers.
    """

    r: int = field(default=8)
    num_subspaces: int = field(default=2)
    partition: Partition = field(default="spectral_blocks")
    modulation: Modulation = field(default="weight")
    alpha: float | None = field(default=None)
    dropout: float = field(default=0.0)
    rank_split: RankSplit = field(default="total")
    branch_ranks: list[int] | None = field(default=None)
    energy: Energy = field(default="l1")
    seed: int = field(default=0)
    forward: Forward = field(default="merged")
    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = SmoaPeftType.SMOA
        for name, literal in (
            ("partition", Partition),
            ("modulation", Modulation),
            ("rank_split", RankSplit),
            ("energy", Energy),
            ("forward", Forward),
            ("bias", Bias),
        ):
            self.require_choice(name, literal)
        for name, minimum in (("r", 1), ("num_subspaces", 1), ("seed", 0)):
            self.require_integer(name, minimum)
        self.require_dropout()
        self.require_alpha()
        if self.partition == "none" and self.num_subspaces != 1:
            raise UserError(
                f"SMoAConfig.num_subspaces is {self.num_subspaces}, but partition 'none' has exactly one subspace: "
                "set num_subspaces to 1 or choose a different partition."
            )
        if self.branch_ranks is not None:
            if self.rank_pattern:
                raise UserError(
                    "SMoAConfig.rank_pattern and SMoAConfig.branch_ranks both decide ranks: remove one of them."
                )
            if self.partition == "grid_blocks":
                raise UserError(
                    "SMoAConfig.branch_ranks is set, but the tiles of partition 'grid_blocks' share r evenly: remove "
                    "branch_ranks or choose a different partition."
                )
            self._validate_branch_ranks(list(self.branch_ranks))
        elif self.rank_split == "total" and self.r < self.num_subspaces:
            raise UserError(
                f"SMoAConfig.r is {self.r}, but with rank_split 'total' it must be at least num_subspaces = "
                f"{self.num_subspaces}, so that every subspace gets a rank of at least 1."
            )

    def _validate_branch_ranks(self, branch_ranks: list[int]) -> None:
        self.branch_ranks = branch_ranks
        for index, rank in enumerate(branch_ranks):
            self.require_integer(f"branch_ranks[{index}]", 1, rank)
        if len(branch_ranks) != self.num_subspaces:
            raise UserError(
                f"SMoAConfig.branch_ranks has {len(branch_ranks)} entries, but must have num_subspaces = "
                f"{self.num_subspaces}, one for each subspace."
            )
        if self.rank_split == "total" and sum(branch_ranks) != self.r:
            raise UserError(
                f"SMoAConfig.branch_ranks {branch_ranks} sum to {sum(branch_ranks)}, but with rank_split 'total' they "
                f"must sum to r = {self.r}."
            )

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank r_k of every subspace; the tiles of a grid are listed row by row.

        >>> SMoAConfig(r=8, num_subspaces=3).ranks
        (3, 3, 2)
        >>> SMoAConfig(r=3, num_subspaces=2, partition="grid_blocks").ranks
        (2, 1, 1, 2)
        """
        if self.branch_ranks is not None:
            return tuple(self.branch_ranks)
        count = self.num_subspaces
        if self.rank_split == "per_subspace":
            return (self.r,) * (count**2 if self.partition == "grid_blocks" else count)
        share, rest = divmod(self.r, count)
        if self.partition == "grid_blocks":  # ranks form a circulant: each row and each column of tiles has r in total
            return tuple(share + ((j - i) % count < rest) for i, j in product(range(count), repeat=2))
        return tuple(share + (index < rest) for index in range(count))

    @property
    def scaling(self) -> float:
        """s = alpha / r, or 1 if alpha is absent."""
        return 1.0 if self.alpha is None else self.alpha / self.r

    def block_shapes(self, out_features: int, in_features: int) -> list[tuple[int, int]]:
        """Return the size (m_k, n_k) of the product ``B_k A_k`` of every subspace, for a layer of this size."""
        if self.partition in ("none", "spectral_energy"):
            return [(out_features, in_features)] * self.num_subspaces
        sides = [near_equal_sizes(size, self.num_subspaces) for size in (out_features, in_features)]
        return list(product(*sides) if self.partition == "grid_blocks" else zip(*sides, strict=True))

    def become_sum(self, configs: Sequence[Any], kind: str, svd_rank: int | None) -> None:
        """Change this copy of the first config to that of a weighted sum of updates."""
        become_sum(self, configs, kind, svd_rank)

    def check_layer(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse a layer that is too small for the number of subspaces or for the ranks."""
        side, count = min(out_features, in_features), self.num_subspaces
        where = f"layer {name} ({out_features} x {in_features})"
        if count > side:
            raise UserError(f"SMoAConfig.num_subspaces is {count}, but must be between 1 and {side} for {where}.")
        shapes = self.block_shapes(out_features, in_features)
        for index, (rank, shape) in enumerate(zip(self.ranks, shapes, strict=True)):
            if rank > min(shape):
                raise UserError(
                    f"SMoAConfig gives subspace {index + 1} of {len(shapes)} the rank {rank}, but it must be between 1 "
                    f"and {min(shape)} for {where}; lower r (now {self.r}) or change num_subspaces."
                )
