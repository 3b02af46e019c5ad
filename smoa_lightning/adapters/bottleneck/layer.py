"""The bottleneck in the adapter slot."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoa_lightning.adapters.bottleneck.config import BottleneckConfig
from smoa_lightning.adapters.tuner import SlotLayer


class BottleneckSlot(SlotLayer):
    r"""``h' = h + sum over active adapters of W_up act(W_down h + b_down) + b_up``, see :class:`BottleneckConfig`.

    Parameters ``bottleneck_down`` (k x n), ``bottleneck_down_bias`` (k), ``bottleneck_up`` (n x k) and
    ``bottleneck_up_bias`` (n).
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_down_bias", "bottleneck_up", "bottleneck_up_bias")
    bottleneck_down: nn.ParameterDict
    bottleneck_down_bias: nn.ParameterDict
    bottleneck_up: nn.ParameterDict
    bottleneck_up_bias: nn.ParameterDict
    configs: dict[str, BottleneckConfig]  # type: ignore[assignment]

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter that starts without effect.

        Raises:
            UserError: The bottleneck is wider than the hidden states.
        """
        config.check_width(self.name, self.width)
        super().update_layer(adapter_name, config)

    def initial_parameters(self, config: BottleneckConfig) -> dict[str, Tensor]:
        """Return a Kaiming-uniform(a = sqrt 5) W_down, and zeros for the other parameters."""
        size, width, dtype = config.bottleneck_size, self.width, self.parameter_dtype()
        down = torch.empty(size, width, dtype=dtype)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        return {
            "bottleneck_down": down,
            "bottleneck_down_bias": torch.zeros(size, dtype=dtype),
            "bottleneck_up": torch.zeros(width, size, dtype=dtype),
            "bottleneck_up_bias": torch.zeros(width, dtype=dtype),
        }

    def residual(self, h: Tensor, adapter: str) -> Tensor:
        """Return ``W_up act(W_down h + b_down) + b_up`` of shape (..., n), for h of the same shape and dtype."""
        down, down_bias, up, up_bias = (getattr(self, name)[adapter].to(h.dtype) for name in self.adapter_layer_names)
        return F.linear(self.activations[adapter](F.linear(h, down, down_bias)), up, up_bias)
