"""The configuration of ABBA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from smoa_lightning.adapters.tuner import PatternConfig
from smoa_lightning.adapters.tuner.weighted import refuse_rank_patterns, refuse_sum
from smoa_lightning.common.errors import UserError

Bias = Literal["none", "all", "abba_only"]


class AbbaPeftType(str, Enum):  # noqa: UP042  (peft takes the name from "Class.NAME")
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    ABBA = "ABBA"


@dataclass
class AbbaConfig(PatternConfig):
    r"""ABBA (arXiv 2505.14238): ``W' = W + s * (B_1 A_1) o (B_2 A_2)``, o is the elementwise product.

    Both pairs are trained. B_1 A_1 starts at the best approximation of W of rank r: ``B_1 = U_r sqrt(S_r)`` and
    ``A_1 = sqrt(S_r) V_r^T`` from the singular value decomposition of W. A_2 starts Kaiming-uniform and B_2 at zero, so
    that W' = W. A layer has 2 r (d_in + d_out) parameters, as a LoRA of rank 2 r, and its update has at most rank r^2.

    The scale is ``s = alpha^2 / sqrt(r_1 r_2) = alpha^2 / r``, since both pairs have rank r. It falls with r so
    that the size of the outputs does not depend on r. The authors' code (CERT-Lab/abba) has s = alpha with alpha = r,
    the same number; docs/methods.md says how far the formulas were checked. A budget changes r, and leaves alpha as it
    is.

    Args:
        r: Rank of each of the two pairs.
        alpha: The update is scaled by s = alpha^2 / r; absent means alpha = r, so that s = r.
        dropout: Dropout probability of the update's inputs in training.
        bias: The trained biases: none, all of the model, or those of the adapted layers.
    """

    r: int = field(default=16)
    alpha: float | None = field(default=None)
    dropout: float = field(default=0.0)
    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = AbbaPeftType.ABBA
        self.require_choice("bias", Bias)
        self.require_integer("r", 1)
        self.require_alpha()
        self.require_dropout()

    @property
    def scaling(self) -> float:
        """s = alpha^2 / r, or r if alpha is absent."""
        return float(self.r) if self.alpha is None else self.alpha**2 / self.r

    def become_sum(self, configs: Sequence[Any], kind: str, svd_rank: int | None) -> None:
        """Change this copy of the first config to that of a weighted sum, with s = 1.

        ``linear`` is exact: an update of ABBA is a product of rank r^2, and the sum has the rank ``sum_i r_i^2``.
        ``svd`` has the rank ``svd_rank``, by default the largest r_i^2.
        """
        if kind not in ("linear", "svd"):
            refuse_sum(self, kind, "it has 'linear' and 'svd'")
        refuse_rank_patterns(configs)
        ranks = [each.r**2 for each in configs]
        self.r = sum(ranks) if kind == "linear" else svd_rank or max(ranks)
        self.alpha, self.alpha_pattern = math.sqrt(self.r), None

    def check_layer(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse a rank that is larger than the number of singular values of W."""
        if self.r > min(out_features, in_features):
            raise UserError(
                f"AbbaConfig.r is {self.r}, but layer {name} ({out_features} x {in_features}) has only "
                f"{min(out_features, in_features)} singular directions: set r to at most this number."
            )
