"""The configuration of HyperAdapt."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from smoa_lightning.adapters.tuner import TunerConfig

Bias = Literal["none", "all", "hyperadapt_only"]


class HyperAdaptPeftType(StrEnum):
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    HYPERADAPT = "HYPERADAPT"


@dataclass
class HyperAdaptConfig(TunerConfig):
    r"""HyperAdapt (arXiv 2509.18629): ``W' = diag(a) W diag(b)``, rows and columns of W rescaled.

    a (d_out) and b (d_in) start at 1: d_out + d_in parameters a layer, a number that no setting changes. The update
    ``W' - W = (a b^T - 1 1^T) o W`` has at most the rank min(d_out, d_in, 2 rank(W)).

    Args:
        bias: Which biases are trained: none, all of the model, or those of the adapted layers.
    """

    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = HyperAdaptPeftType.HYPERADAPT
        self.require_choice("bias", Bias)
