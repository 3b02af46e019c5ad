"""The configuration of SURM: the structured matrix and its place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal

from torch import nn

from smoa_lightning.adapters.surm.structured import Structure, factor_shapes, tile_size
from smoa_lightning.adapters.surm.weighted_sum import become_sum
from smoa_lightning.adapters.tuner import PatternConfig, linear_shape
from smoa_lightning.adapters.tuner.slot import Placement, activation_function, is_after_attention, slot_targets
from smoa_lightning.common.errors import UserError

Slot = Literal["update", "adapter"]
Bias = Literal["none", "all", "surm_only"]
DropoutPlace = Literal["all", "attention"]


class SurmPeftType(str, Enum):  # noqa: UP042  (peft takes the name from "Class.NAME")
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    SURM = "SURM"


@dataclass
class SurmConfig(PatternConfig):
    r"""Structured unrestricted-rank matrices (arXiv 2406.17740): an update D of few parameters and of high rank.

    =================  ===========================================  ====================
    structure          D (n x n)                                    trainable parameters
    =================  ===========================================  ====================
    circulant          C(b o a), ``C(c)_ij = c_{(i-j) mod n}``      2 n
    toeplitz           T(b) T(a), ``T(c)_ij = c_{|i-j|}``           2 n
    toeplitz_hadamard  T(b o a)                                     2 n
    kronecker          B (x) A, B (n_out/r x r), A (r x n_in/r)     n_in + n_out
    ldr                sum over i <= m of C(g_i) S(h_i)             2 n m
    =================  ===========================================  ====================

    o is the elementwise product, (x) the Kronecker product, S a skew-circulant matrix. The update starts at zero: at
    the start the first factor is zero, and the second factor is N(0, 0.02), or Kaiming-uniform for ``kronecker``. Some
    defaults differ from the authors' code; each is a setting, and its text names the authors' value.

    If a layer is not square, n is max(d_in, d_out): the input is padded with zeros, the output is cropped.
    ``kronecker`` needs no padding. With ``block_size`` b the layer is cut into ceil(d_out/b) ceil(d_in/b) tiles. Each
    tile has a separate structure of size b with 2 b parameters (2 b m for ``ldr``); tiles at the border are cropped.
    The paper covers square layers only; padding and tiles are our additions.

    ``slot: update``: ``y = (W + s D) x``, mergeable. ``slot: adapter``: ``h' = h + act(s D h) + bias`` on the hidden
    states h after attention and feed-forward, before the residual sum, without a bottleneck and with n trained biases.

    Args:
        structure: The structure of D. The update slot also adapts ``nn.Embedding`` and ``nn.Conv2d``, where every step
            forms D. The authors' default Toeplitz class is ``toeplitz`` in the update slot and
            ``toeplitz_hadamard`` in the adapter slot.
        slot: Whether D is an update of linear layers or an adapter after attention and feed-forward.
        displacement_rank: m of ``ldr``.
        kronecker_rank: r of ``kronecker``; must divide both sizes (or the block size). Absent means the common divisor
            with the largest possible rank of D, ``min(n_out/r, r) min(r, n_in/r)``. Without a common divisor above 1,
            r is 1 and D is a LoRA of rank 1.
        block_size: b; absent means one structure for the whole layer.
        alpha: s, a plain multiplier, since the method has no rank to divide by; absent means 1.
        alpha_over_rank: Divide s by r of ``kronecker``. The authors' code does so in the update slot (true there).
        initial_std: Standard deviation of the second factor at the start, which is then normal for every structure.
            Absent means 0.02, or Kaiming-uniform for ``kronecker``. The authors' code has 1 for ``circulant`` in the
            update slot and 0.02 for ``kronecker`` in the adapter slot.
        dropout: Dropout probability of D's inputs in training.
        dropout_place: Adapter slots with dropout: ``all``, or those after ``attention`` alone, as in the authors' code.
            There the other slots get it under a name that their adapter does not read.
        activation: act of the adapter slot, a function of transformers with act(0) = 0.
        placement: Place of the adapter slot: after attention and feed-forward (``houlsby``) or only after feed-forward
            (``pfeiffer``); sets the default of ``target_modules``.
        after_dropout: Put the adapter slot after the backbone's dropout instead of before it, as the authors' code does
            in BERT (true there); sets the default of ``target_modules``.
        bias: The trained biases of the backbone: none, all, or those of the adapted layers.
    """

    other_layers: ClassVar[bool] = True

    structure: Structure = field(default="circulant")
    slot: Slot = field(default="update")
    displacement_rank: int = field(default=1)
    kronecker_rank: int | None = field(default=None)
    block_size: int | None = field(default=None)
    alpha: float | None = field(default=None)
    alpha_over_rank: bool = field(default=False)
    initial_std: float | None = field(default=None)
    dropout: float = field(default=0.0)
    dropout_place: DropoutPlace = field(default="all")
    activation: str = field(default="gelu")
    placement: Placement = field(default="houlsby")
    after_dropout: bool = field(default=False)
    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = SurmPeftType.SURM
        for name, literal in (
            ("structure", Structure),
            ("slot", Slot),
            ("placement", Placement),
            ("dropout_place", DropoutPlace),
            ("bias", Bias),
        ):
            self.require_choice(name, literal)
        self.require_integer("displacement_rank", 1)
        for name in ("kronecker_rank", "block_size"):
            if getattr(self, name) is not None:
                self.require_integer(name, 1)
        self.require_dropout()
        self.require_alpha()
        self.require_positive("initial_std")
        self.require_rank_field()
        activation_function(self, zero_at_zero=True)
        for name, default, other, value in (
            ("displacement_rank", 1, "structure", "ldr"),
            ("kronecker_rank", None, "structure", "kronecker"),
            ("alpha_over_rank", False, "structure", "kronecker"),
            ("activation", "gelu", "slot", "adapter"),
            ("placement", "houlsby", "slot", "adapter"),
            ("after_dropout", False, "slot", "adapter"),
            ("dropout_place", "all", "slot", "adapter"),
            ("dropout_place", "all", "placement", "houlsby"),
        ):
            if getattr(self, name) != default and getattr(self, other) != value:
                raise UserError(
                    f"SurmConfig.{name} is {getattr(self, name)!r}, but has no effect under {other} "
                    f"{getattr(self, other)!r}: leave it at {default!r} or set {other} to {value!r}."
                )

    @property
    def rank_field(self) -> str | None:
        """``kronecker_rank`` or ``displacement_rank``; None for other structures."""
        return {"kronecker": "kronecker_rank", "ldr": "displacement_rank"}.get(self.structure)

    def become_sum(self, configs: Sequence[Any], kind: str, svd_rank: int | None) -> None:
        """Change this copy of the first config to that of a weighted sum of updates."""
        become_sum(self, configs, kind)

    def for_layer(self, name: str) -> SurmConfig:
        """Return the config of one layer: without dropout where ``dropout_place`` leaves it out."""
        config = super().for_layer(name)
        if self.dropout_place == "all" or is_after_attention(name):
            return config
        config = copy.copy(config)
        config.dropout = 0.0
        return config

    def scaling_of(self, kronecker_rank: int) -> float:
        """Return s = alpha, or 1 if alpha is absent, divided by the Kronecker rank under ``alpha_over_rank``."""
        scaling = 1.0 if self.alpha is None else float(self.alpha)
        return scaling / kronecker_rank if self.alpha_over_rank else scaling

    def default_targets(self, model_type: str) -> list[str] | str | None:
        """Return linear layers for the update slot, and the known modules of ``placement`` for the adapter slot."""
        if self.slot == "update":
            return super().default_targets(model_type)
        return slot_targets(self, model_type)

    def shapes(self, out_features: int, in_features: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of the two factors for an update of shape (out_features, in_features)."""
        return factor_shapes(
            self.structure, out_features, in_features, self.block_size, self.displacement_rank, self.kronecker_rank
        )

    def check_target(self, name: str, module: nn.Module) -> None:
        """Refuse a module that cannot be adapted; in the adapter slot only linear layers can be checked here."""
        if self.slot == "update":
            super().check_target(name, module)
        else:
            shape = linear_shape(module)
            if shape is not None:
                self.check_layer(name, shape[0], shape[0])

    def check_embedding(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse products of untiled matrices with as many rows and columns as the embedding has tokens."""
        if self.structure in ("toeplitz", "ldr") and self.block_size is None:
            raise UserError(
                f"SurmConfig.structure {self.structure!r} without block_size multiplies matrices of {in_features} x "
                f"{in_features} for the embedding {name}: set block_size, such as {out_features}."
            )

    def check_layer(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse a block size, displacement rank or Kronecker rank that does not fit."""
        where = f"layer {name} ({out_features} x {in_features})"
        limit = max(out_features, in_features)
        for field_name in ("block_size", "displacement_rank"):
            value = getattr(self, field_name)
            if field_name == "displacement_rank":
                limit = tile_size(out_features, in_features, self.block_size)
            if value is not None and value > limit:
                raise UserError(f"SurmConfig.{field_name} is {value}, but must be between 1 and {limit} for {where}.")
        if self.kronecker_rank is None:
            return
        sizes = [out_features, in_features] if self.block_size is None else [self.block_size]
        if any(size % self.kronecker_rank for size in sizes):
            fitting = [r for r in range(1, min(sizes) + 1) if not any(size % r for size in sizes)]
            closest = min(fitting, key=lambda r: abs(r - self.kronecker_rank))  # type: ignore[operator]
            what = "the block size" if self.block_size else "both sizes"
            raise UserError(
                f"SurmConfig.kronecker_rank is {self.kronecker_rank}, but must divide {what} "
                f"{' and '.join(map(str, sizes))} of {where}; nearest: {closest}."
            )
