"""The configuration of MoRA."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from smoa_lightning.adapters.mora.compress import square_size
from smoa_lightning.adapters.tuner import TunerConfig
from smoa_lightning.common.errors import UserError

Compression = Literal["sharing", "rotation"]
Bias = Literal["none", "all", "mora_only"]


class MoraPeftType(StrEnum):
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    MORA = "MORA"


@dataclass
class MoraConfig(TunerConfig):
    r"""MoRA (arXiv 2405.12130): ``y = x W^T + s * decompress(M compress(x))`` with one square matrix M a layer.

    M has the size ``r_hat = floor(sqrt((d_in + d_out) r))``, so that it has as many parameters as a LoRA of rank r, or
    just fewer, and starts at zero; compress: d_in -> r_hat and decompress: r_hat -> d_out have no parameters (see
    ``compress.py`` for their equations).

    Settled from the authors' code (kongds/MoRA): both operators, that M starts at zero, that s is 1, that ``rotation``
    makes r_hat even. Their code rounds r_hat to the nearest integer; here it is rounded down, as in the paper, so that
    the budget of LoRA is never exceeded. Ours: r_hat is at most min(d_in, d_out), beyond which M would have entries
    without a use.

    Args:
        r: Rank of the LoRA that has as many parameters.
        type: ``sharing`` (the paper's equation 6, ``mora_type=1`` in the authors' code) sums groups of inputs and
            repeats outputs; for large r. ``rotation`` (equation 9, ``mora_type=6``) applies M to every piece of the
            input, rotated by an angle of its own; for small r.
        alpha: The update is scaled by s = alpha / r; absent means s = 1, as in the paper.
        dropout: Probability with which inputs of the update are dropped in training.
        bias: Which biases are trained: none, all of the model, or those of the adapted layers.
    """

    r: int = field(default=8)
    type: Compression = field(default="sharing")
    alpha: float | None = field(default=None)
    dropout: float = field(default=0.0)
    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = MoraPeftType.MORA
        self.require_choice("type", Compression)
        self.require_choice("bias", Bias)
        self.require_integer("r", 1)
        self.require_alpha()
        self.require_dropout()

    @property
    def scaling(self) -> float:
        """s = alpha / r, 1 where alpha is absent."""
        return 1.0 if self.alpha is None else self.alpha / self.r

    def check_layer(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse the rotation of a layer that has no pair of coordinates to rotate."""
        if square_size(self.r, out_features, in_features, self.type == "rotation") < 1:
            raise UserError(
                f"MoraConfig.type is 'rotation', which turns pairs of coordinates, but layer {name} ({out_features} x "
                f"{in_features}) has no two of them; use 'sharing' or leave the layer out."
            )
