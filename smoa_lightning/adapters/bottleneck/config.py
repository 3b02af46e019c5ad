"""The configuration of bottleneck adapters."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from torch import nn

from smoa_lightning.adapters.tuner import TunerConfig, linear_shape
from smoa_lightning.adapters.tuner.slot import Placement, activation_function, slot_targets
from smoa_lightning.common.errors import UserError

Bias = Literal["none", "all", "bottleneck_only"]


class BottleneckPeftType(str, Enum):  # noqa: UP042  (peft takes the name from "Class.NAME")
    """The key under which peft knows the method; peft's own enum cannot be extended from outside."""

    BOTTLENECK = "BOTTLENECK"


@dataclass
class BottleneckConfig(TunerConfig):
    r"""Bottleneck adapters: ``h' = h + W_up act(W_down h + b_down) + b_up`` before the residual sum.

    h (n) are the hidden states after attention and after feed-forward (``houlsby``, arXiv 1902.00751), or only after
    feed-forward (``pfeiffer``, arXiv 2005.00247, without its additional layer norm). At the start W_down (k x n) is
    Kaiming-uniform(a = sqrt 5); W_up (n x k) and both biases are zero. Each slot has 2 n k + k + n parameters. The
    adapter is not linear and cannot be merged.

    Args:
        bottleneck_size: k.
        placement: After attention and feed-forward (``houlsby``) or only after feed-forward (``pfeiffer``); sets the
            default of ``target_modules``.
        after_dropout: Put the adapter after the backbone's dropout instead of before it; sets the default of
            ``target_modules``.
        activation: act, a function of transformers such as gelu, relu or silu.
        dropout: Dropout probability of the adapter's inputs in training.
        bias: The trained biases of the backbone: none, all, or those of the adapted layers.
    """

    bottleneck_size: int = field(default=64)
    placement: Placement = field(default="houlsby")
    after_dropout: bool = field(default=False)
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
        """Return the modules of ``placement`` for a known architecture; else None."""
        return slot_targets(self, model_type)

    def check_target(self, name: str, module: nn.Module) -> None:
        """Refuse a linear layer that is narrower than the bottleneck; the width of any other module is unknown here."""
        shape = linear_shape(module)
        if shape is not None:
            self.check_width(name, shape[0])

    def check_width(self, name: str, width: int) -> None:
        """Refuse a bottleneck that is wider than the hidden states.

        Raises:
            UserError: It is wider; the message names the valid range.
        """
        if self.bottleneck_size > width:
            raise UserError(
                f"BottleneckConfig.bottleneck_size is {self.bottleneck_size}, but must be between 1 and {width}, the "
                f"size of the hidden states after {name}."
            )
