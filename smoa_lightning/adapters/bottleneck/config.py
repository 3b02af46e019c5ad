"""The configuration of bottleneck adapters."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from torch import nn

from smoa_lightning.adapters.tuner import TunerConfig, linear_shape
from smoa_lightning.adapters.tuner.slot import Placement, activation_function, slot_targets
from smoa_lightning.common.errors import UserError

Bias = Literal["none", "all", "bottleneck_only"]


class BottleneckPeftType(StrEnum):
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    BOTTLENECK = "BOTTLENECK"


@dataclass
class BottleneckConfig(TunerConfig):
    r"""Bottleneck adapters: ``h' = h + W_up act(W_down h + b_down) + b_up`` before the residual sum.

    h (n) are the hidden states after the attention output and after the feed-forward output (``houlsby``, arXiv
    1902.00751), or after the latter alone (``pfeiffer``, arXiv 2005.00247; the place only, without its further layer
    norm). W_down (k x n) is Kaiming-uniform(a = sqrt 5); W_up (n x k) and both biases are zero at start: 2 n k + k + n
    parameters for each slot. An adapter is not linear and cannot be merged.

    Args:
        bottleneck_size: k.
        placement: After attention and feed-forward (``houlsby``) or after feed-forward alone (``pfeiffer``); decides
            the default of ``target_modules``.
        activation: act, a name of transformers' such as gelu, relu or silu.
        dropout: Probability with which the adapter's inputs are dropped in training.
        bias: Which biases of the backbone are trained: none, all, or those of the adapted layers.
    """

    bottleneck_size: int = field(default=64)
    placement: Placement = field(default="houlsby")
    activation: str = field(default="gelu")
    dropout: float = field(default=0.0)
    bias: Bias = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BottleneckPeftType.BOTTLENECK
        self.require_choice("placement", Placement)
        self.require_choice("bias", Bias)
        self.require_integer("bottleneck_size", 1)
        self.require_dropout()
        activation_function(self)

    def default_targets(self, model_type: str) -> list[str] | str | None:
        """Attention and feed-forward output of a known architecture, as ``placement`` says; else None."""
        return slot_targets(self, model_type)

    def check_target(self, name: str, module: nn.Module) -> None:
        """Refuse a linear layer that is narrower than the bottleneck; any other module has a chance."""
        shape = linear_shape(module)
        if shape is not None:
            self.check_width(name, shape[0])

    def check_width(self, name: str, width: int) -> None:
        """Refuse a bottleneck that is wider than the hidden states.

        Raises:
            UserError: Names the valid range.
        """
        if self.bottleneck_size > width:
            raise UserError(
                f"BottleneckConfig.bottleneck_size is {self.bottleneck_size}, but must be between 1 and {width}, the "
                f"size of the hidden states after {name}."
            )
