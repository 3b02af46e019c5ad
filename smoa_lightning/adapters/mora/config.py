"""The configuration of MoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal

from smoa_lightning.adapters.mora.compress import square_size
from smoa_lightning.adapters.tuner import PatternConfig
from smoa_lightning.adapters.tuner.weighted import refuse_sum, require_equal
from smoa_lightning.common.errors import UserError

Compression = Literal["sharing", "rotation"]
Rounding = Literal["floor", "nearest"]
Bias = Literal["none", "all", "mora_only"]


class MoraPeftType(str, Enum):  # noqa: UP042  (peft takes the name from "Class.NAME")
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    MORA = "MORA"


@dataclass
class MoraConfig(PatternConfig):
    r"""MoRA (arXiv 2405.12130): ``y = x W^T + s * decompress(M compress(x))`` with one square matrix M a layer.

    M starts at zero. Its size ``r_hat = floor(sqrt((d_in + d_out) r))`` gives at most as many parameters as a LoRA of
    rank r. compress: d_in -> r_hat and decompress: r_hat -> d_out have no parameters (equations in ``compress.py``).

    The authors' code (kongds/MoRA) decides both operators, M = 0 at the start, s = 1, and an even r_hat for
    ``rotation``. It rounds r_hat to the nearest integer (``rounding: nearest``). By default r_hat is rounded down, as
    in the paper, so that M never exceeds the budget of LoRA. Our addition: r_hat is at most min(d_in, d_out), since a
    larger M has unused entries. ``nn.Conv2d`` and, for ``sharing``, ``nn.Embedding`` can be adapted, too; every step
    then forms the update.

    Args:
        r: Rank of the LoRA with the same number of parameters.
        type: ``sharing`` (equation 6, ``mora_type=1`` in the authors' code) sums groups of inputs and repeats outputs;
            for large r. ``rotation`` (equation 9, ``mora_type=6``) applies M to every piece of the input, each rotated
            by a different angle; for small r.
        rounding: How r_hat becomes an integer: ``floor`` as in the paper, or ``nearest`` as in the authors' code.
        alpha: The update is scaled by s = alpha / r; absent means s = 1, as in the paper.
        dropout: Dropout probability of the update's inputs in training.
        bias: The trained biases: none, all of the model, or those of the adapted layers.
    """

    other_layers: ClassVar[bool] = True

    r: int = field(default=8)
    type: Compression = field(default="sharing")
    rounding: Rounding = field(default="floor")
    alpha: float | None = field(default=None)
    dropout: float = field(default=0.0)
    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = MoraPeftType.MORA
        self.require_choice("type", Compression)
        self.require_choice("rounding", Rounding)
        self.require_choice("bias", Bias)
        self.require_integer("r", 1)
        self.require_alpha()
        self.require_dropout()

    @property
    def scaling(self) -> float:
        """s = alpha / r, or 1 if alpha is absent."""
        return 1.0 if self.alpha is None else self.alpha / self.r

    def size(self, out_features: int, in_features: int) -> int:
        """Return r_hat for a layer of this shape; 0 if ``rotation`` finds no pair of coordinates."""
        return square_size(self.r, out_features, in_features, self.type == "rotation", self.rounding == "nearest")

    def become_sum(self, configs: Sequence[Any], kind: str, svd_rank: int | None) -> None:
        """Change this copy of the first config to that of a weighted sum of updates, which is exact."""
        if kind != "linear":
            refuse_sum(self, kind, "its sums are exact with 'linear'")
        require_equal(configs, ("r", "type", "rounding", "rank_pattern"))
        self.alpha = self.alpha_pattern = None

    def check_embedding(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse the rotation, whose update would leave out most tokens."""
        if self.type == "rotation":
            raise UserError(
                f"MoraConfig.type 'rotation' updates about {out_features} of the {in_features} tokens of the embedding "
                f"{name} only: use 'sharing' or leave the embedding out."
            )

    def check_layer(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse the rotation of a layer without a pair of coordinates to rotate."""
        if self.size(out_features, in_features) < 1:
            raise UserError(
                f"MoraConfig.type is 'rotation', which rotates pairs of coordinates, but layer {name} ({out_features} "
                f"x {in_features}) has no such pair; use 'sharing' or leave the layer out."
            )
