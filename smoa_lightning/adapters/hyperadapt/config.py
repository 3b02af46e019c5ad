"""The configuration of HyperAdapt."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from smoa_lightning.adapters.tuner import TunerConfig

Bias = Literal["none", "all", "hyperadapt_only"]


class HyperAdaptPeftType(str, Enum):  # noqa: UP042  (peft takes the name from "Class.NAME")
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    HYPERADAPT = "HYPERADAPT"


@dataclass
class HyperAdaptConfig(TunerConfig):
    r"""HyperAdapt (arXiv 2509.18629): ``W' = diag(a) W diag(b)`` rescales the rows and columns of W.

    a (d_out) and b (d_in) start at 1. A layer has d_out + d_in parameters, and no setting changes this number. The
    update ``W' - W = (a b^T - 1 1^T) o W`` has at most rank min(d_out, d_in, 2 rank(W)).

    Args:
        bias: The trained biases: none, all of the model, or those of the adapted layers.
    """

    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = HyperAdaptPeftType.HYPERADAPT
        self.require_choice("bias", Bias)
