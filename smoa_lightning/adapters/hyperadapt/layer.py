"""A linear layer with HyperAdapt adapters, and its mathematics in two functions."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from smoa_lightning.adapters.hyperadapt.config import HyperAdaptConfig
from smoa_lightning.adapters.tuner import BoundLayer


def rescaled_output(y: Tensor, a: Tensor, bias: Tensor | None) -> Tensor:
    """Rescale the output y of a linear layer for ``b o x``: ``a o (y - bias) + bias``; a = 1 changes no bit of y.

    Args:
        y: ``(b o x) W^T + bias`` of shape (..., d_out).
        a: Shape (d_out,).
        bias: Shape (d_out,), or None.

    Returns:
        ``a o ((b o x) W^T) + bias`` in the dtype of y.
    """
    result = a * y if bias is None else torch.addcmul(a * y, 1 - a, bias.to(a.dtype))
    return result.to(y.dtype)


def rescaling_update(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return ``diag(a) W diag(b) - W`` of shape (d_out, d_in), in the wider dtype of W and a."""
    return (torch.outer(a, b) - 1) * weight


class HyperAdaptLinear(BoundLayer):
    r"""``y = x W'^T + bias`` with ``W' = W + sum over active adapters of (diag(a) W diag(b) - W)`` (arXiv 2509.18629).

    One adapter needs one product, with the frozen layer itself: ``a o ((b o x) W^T) + bias``. W is never read, so that
    this also works with a quantised layer. n adapters need n + 1 products. Parameters ``hyperadapt_a`` (d_out) and
    ``hyperadapt_b`` (d_in) are float32, or float64 for a float64 layer.

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model.
    """

    adapter_layer_names = ("hyperadapt_a", "hyperadapt_b")
    frozen_state = ("hyperadapt_fingerprint",)
    fingerprint_name = "hyperadapt_fingerprint"
    hyperadapt_a: nn.ParameterDict
    hyperadapt_b: nn.ParameterDict
    hyperadapt_fingerprint: BufferDict

    def initial_parameters(self, config: HyperAdaptConfig) -> dict[str, Tensor]:
        """Return a and b of ones."""
        dtype = self.parameter_dtype()
        return {
            "hyperadapt_a": torch.ones(self.out_features, dtype=dtype),
            "hyperadapt_b": torch.ones(self.in_features, dtype=dtype),
        }

    def dense_update(self, adapter: str) -> Tensor:
        """Return ``diag(a) W diag(b) - W`` of shape (out_features, in_features)."""
        a, b = self.hyperadapt_a[adapter].detach(), self.hyperadapt_b[adapter].detach()
        return rescaling_update(self.unmerged_weight().detach(), a, b)

    def rank_bound(self, adapter: str) -> int:
        """Return min(d_out, d_in); the smaller bound 2 rank(W) would need W."""
        return min(self.out_features, self.in_features)

    def adapted_forward(self, x: Tensor, active: list[str], *args: Any, **kwargs: Any) -> Tensor:
        """Apply the frozen layer to the rescaled inputs of each adapter, and rescale its outputs."""
        bias = self._bias()
        total: Tensor | None = None
        for name in active:
            inputs = (self.hyperadapt_b[name] * x).to(x.dtype)
            y = rescaled_output(self.base_layer(inputs, *args, **kwargs), self.hyperadapt_a[name], bias)
            total = y if total is None else total + y
        assert total is not None  # the caller has active adapters
        if len(active) > 1:  # each adapter's output includes x W^T + bias, which must count once
            total = total - (len(active) - 1) * self.base_layer(x, *args, **kwargs)
        return total
