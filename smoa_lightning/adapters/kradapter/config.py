"""The configuration of KRAdapter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from smoa_lightning.adapters.tuner import PatternConfig
from smoa_lightning.adapters.tuner.weighted import refuse_rank_patterns, refuse_sum, require_equal
from smoa_lightning.common.errors import UserError

Bias = Literal["none", "all", "kradapter_only"]


class KRAdapterPeftType(str, Enum):  # noqa: UP042  (peft takes the name from "Class.NAME")
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    KRADAPTER = "KRADAPTER"


@dataclass
class KRAdapterConfig(PatternConfig):
    r"""KRAdapter (arXiv 2508.00230): the update is a Khatri-Rao product, ``D_i = s * (v_i (x) u_i)`` for every row i.

    With m = min(d_out, d_in) and N = max(d_out, d_in), U (m x k_1) and V (m x k_2) are trained, where
    k_2 = ceil(N / k_1). Row i of the m x N update is the Kronecker product of row i of V and row i of U, cut at N
    entries; a layer with more outputs than inputs has its transpose. A layer has m (k_1 + k_2) parameters, and the
    update can have full rank.

    U starts at zero, and V Kaiming-uniform with a = 5, as in the authors' code (PaulAlbert31/KRAdapter). Its layer has
    ``k_1 = floor(sqrt(m))`` and s = 2, the defaults here.

    Args:
        k1: Number of columns of U; absent means floor(sqrt(m)) in every layer. The number of parameters is smallest
            near sqrt(N), and grows to both sides.
        scaling: s, the factor of the update.
        dropout: Dropout probability of the update's inputs in training.
        bias: The trained biases: none, all of the model, or those of the adapted layers.
    """

    k1: int | None = field(default=None)
    scaling: float = field(default=2.0)
    dropout: float = field(default=0.0)
    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = KRAdapterPeftType.KRADAPTER
        self.require_choice("bias", Bias)
        if self.k1 is not None:
            self.require_integer("k1", 1)
        self.require_positive("scaling")
        if self.scaling is None:
            raise UserError("KRAdapterConfig.scaling is absent, but must be above 0; the default is 2.")
        self.require_dropout()

    @property
    def rank_field(self) -> str:
        """``k1``."""
        return "k1"

    @property
    def alpha_field(self) -> str:
        """``scaling``."""
        return "scaling"

    def become_sum(self, configs: Sequence[Any], kind: str, svd_rank: int | None) -> None:
        """Change this copy of the first config to that of the nearest update to a weighted sum, with s = 1."""
        if kind != "svd":
            refuse_sum(self, kind, "it has 'svd', the nearest Khatri-Rao product")
        require_equal(configs, ("k1",))
        refuse_rank_patterns(configs)
        self.scaling, self.alpha_pattern = 1.0, None

    def columns(self, out_features: int, in_features: int) -> tuple[int, int]:
        """Return k_1 and k_2 for a layer of this shape."""
        k1 = math.isqrt(min(out_features, in_features)) if self.k1 is None else self.k1
        return k1, -(-max(out_features, in_features) // k1)

    def check_layer(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse a k_1 above N, which has unused columns."""
        if self.k1 is not None and self.k1 > max(out_features, in_features):
            raise UserError(
                f"KRAdapterConfig.k1 is {self.k1}, but must be at most {max(out_features, in_features)} for layer "
                f"{name} ({out_features} x {in_features})."
            )
