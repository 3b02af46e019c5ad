"""The configuration of the SMoA family: one equation, three switches."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, get_args

from peft import PeftConfig

from smoa_lightning.errors import UserError, nearest

Partition = Literal["none", "spectral_energy", "spectral_blocks", "contiguous_blocks", "random_blocks"]
Modulation = Literal["weight", "none", "random"]
RankSplit = Literal["total", "per_subspace"]
Energy = Literal["l1", "l2", "count"]
Bias = Literal["none", "all", "smoa_only"]

BLOCK_PARTITIONS: tuple[str, ...] = ("spectral_blocks", "contiguous_blocks", "random_blocks")


class SmoaPeftType(StrEnum):
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    SMOA = "SMOA"


@dataclass
class SMoAConfig(PeftConfig):
    r"""Structured modulation adapters: ``W' = W + s * sum_k P_k[(B_k A_k) o M_k]``.

    W (d_out x d_in) is frozen, o is the elementwise product, and s = alpha / r. The three switches are what is
    partitioned (``partition``), into how many subspaces (``num_subspaces``) and what the low-rank product is
    multiplied with (``modulation``). Corner cases: ``none`` + ``weight`` is HiRA (OpenReview TwJrTz9cRS), ``none`` +
    ``none`` is LoRA (arXiv 2106.09685), ``contiguous_blocks`` + ``none`` is MELoRA (arXiv 2402.17263).
    Sources: arXiv 2601.07507 (``spectral_energy``) and arXiv 2605.21147 (``spectral_blocks``).

    Args:
        r: Rank; the sum over all subspaces under ``rank_split: total``, of each one under ``per_subspace``.
        num_subspaces: K, the number of subspaces; 1 for ``partition: none``.
        partition: What is partitioned: nothing (``none``), the singular directions (``spectral_energy``), or the
            rows and columns after a spectral reordering (``spectral_blocks``), as they stand (``contiguous_blocks``)
            or shuffled (``random_blocks``).
        modulation: What multiplies the low-rank product: the frozen weight, nothing, or seeded uniform noise.
        alpha: The update is scaled by alpha / r; absent means alpha = r, so that the scale is 1.
        dropout: Probability with which inputs of the update are dropped in training; 0 gives one GEMM per layer.
        rank_split: ``total`` shares r among the subspaces (the first r % K get one more), ``per_subspace`` gives r
            to each.
        branch_ranks: The rank of every subspace one by one; must sum to r under ``rank_split: total``.
        energy: What ``spectral_energy`` cuts into equal shares: the sum of singular values (``l1``), of their
            squares (``l2``) or their number (``count``).
        seed: Seed of the orders of ``random_blocks`` and of the noise of ``modulation: random``.
        target_modules: Names of the layers to adapt: a list of names, a regular expression, ``all-linear``, or
            absent for the attention inputs and the feed-forward layers of the architecture.
        exclude_modules: Names or a regular expression of layers to leave out.
        layers_to_transform: Index or indices of the transformer layers to adapt; absent means all.
        layers_pattern: Name of the list of transformer layers, needed only where it is not found by itself.
        modules_to_save: Further modules that are trained and saved in full.
        bias: Which biases are trained: none, all of the model, or those of the adapted layers.
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
    target_modules: list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)
    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = SmoaPeftType.SMOA
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, set | tuple | frozenset):
                setattr(self, name, sorted(value))  # JSON-safe, and the same file in every process
        self._validate_choices()
        self._validate_numbers()
        self._validate_targets()

    def _validate_choices(self) -> None:
        choices = {
            "partition": Partition,
            "modulation": Modulation,
            "rank_split": RankSplit,
            "energy": Energy,
            "bias": Bias,
        }
        for name, literal in choices.items():
            value = getattr(self, name)
            if value not in get_args(literal):
                raise UserError(
                    f"SMoAConfig.{name} is {value!r}, but must be one of {', '.join(get_args(literal))}; "
                    f"nearest: {nearest(str(value), get_args(literal), 1)}."
                )

    def _validate_numbers(self) -> None:
        _require_integer("r", self.r, 1)
        _require_integer("num_subspaces", self.num_subspaces, 1)
        _require_integer("seed", self.seed, 0)
        if self.partition == "none" and self.num_subspaces != 1:
            raise UserError(
                f"SMoAConfig.num_subspaces is {self.num_subspaces}, but partition 'none' has exactly one subspace: "
                "set num_subspaces to 1 or choose another partition."
            )
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise UserError(f"SMoAConfig.dropout is {self.dropout!r}, but must be at least 0 and less than 1.")
        if self.alpha is not None and (
            isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not 0 < self.alpha < float("inf")
        ):
            raise UserError(f"SMoAConfig.alpha is {self.alpha!r}, but must be above 0, or absent for alpha = r.")
        if self.branch_ranks is not None:
            self._validate_branch_ranks(list(self.branch_ranks))
        elif self.rank_split == "total" and self.r < self.num_subspaces:
            raise UserError(
                f"SMoAConfig.r is {self.r}, but under rank_split 'total' it must be at least num_subspaces = "
                f"{self.num_subspaces}, so that every subspace gets a rank of at least 1."
            )

    def _validate_branch_ranks(self, branch_ranks: list[int]) -> None:
        self.branch_ranks = branch_ranks
        for index, rank in enumerate(branch_ranks):
            _require_integer(f"branch_ranks[{index}]", rank, 1)
        if len(branch_ranks) != self.num_subspaces:
            raise UserError(
                f"SMoAConfig.branch_ranks has {len(branch_ranks)} entries, but must have num_subspaces = "
                f"{self.num_subspaces}, one for each subspace."
            )
        if self.rank_split == "total" and sum(branch_ranks) != self.r:
            raise UserError(
                f"SMoAConfig.branch_ranks {branch_ranks} sum to {sum(branch_ranks)}, but under rank_split 'total' they "
                f"must sum to r = {self.r}."
            )

    def _validate_targets(self) -> None:
        if isinstance(self.target_modules, str):
            for name in ("layers_to_transform", "layers_pattern"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"SMoAConfig.{name} needs target_modules to be a list of names, but it is the text "
                        f"{self.target_modules!r}; write the layer indices into the regular expression instead."
                    )
        if self.layers_pattern and self.layers_to_transform is None:
            raise UserError("SMoAConfig.layers_pattern has no effect without layers_to_transform: set both or neither.")

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank r_k of every subspace.

        >>> SMoAConfig(r=8, num_subspaces=3).ranks
        (3, 3, 2)
        """
        if self.branch_ranks is not None:
            return tuple(self.branch_ranks)
        if self.rank_split == "per_subspace":
            return (self.r,) * self.num_subspaces
        share, rest = divmod(self.r, self.num_subspaces)
        return tuple(share + (index < rest) for index in range(self.num_subspaces))

    @property
    def scaling(self) -> float:
        """s = alpha / r, 1 where alpha is absent."""
        return 1.0 if self.alpha is None else self.alpha / self.r


def _require_integer(name: str, value: Any, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UserError(f"SMoAConfig.{name} is {value!r}, but must be an integer of at least {minimum}.")
