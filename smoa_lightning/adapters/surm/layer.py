"""Layers with SURM adapters: an update of a linear layer, and a residual map in the adapter slot."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from smoa_lightning.adapters.surm.config import SurmConfig
from smoa_lightning.adapters.surm.structured import kronecker_rank_bound, structured_matrix, structured_product
from smoa_lightning.adapters.surm.weighted_sum import set_to_sum
from smoa_lightning.adapters.tuner import SlotLayer, UpdateLayer

STANDARD_DEVIATION = 0.02  # initial value of the nonzero factor


def initial_factors(config: SurmConfig, out_features: int, in_features: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return zero left factors, and normal right factors, or Kaiming-uniform (a = sqrt 5, n_in/r) for Kronecker."""
    left_shape, right_shape = config.shapes(out_features, in_features)
    right = torch.empty(right_shape, dtype=dtype)
    if config.structure == "kronecker" and config.initial_std is None:
        bound = 1 / math.sqrt(right_shape[-1])
        right.uniform_(-bound, bound)
    else:
        right.normal_(std=STANDARD_DEVIATION if config.initial_std is None else config.initial_std)
    return {"surm_left": torch.zeros(left_shape, dtype=dtype), "surm_right": right}


def scaled_left(config: SurmConfig, left: Tensor) -> Tensor:
    """Return s times the left factors; the Kronecker rank is their last size."""
    return left * config.scaling_of(left.shape[-1])


class SurmLinear(UpdateLayer):
    r"""``y = x (W + sum over active adapters of s D)^T + b`` with a structured D, see :class:`SurmConfig`.

    Parameters for all tiles, with the letters of the table there: ``surm_left`` (b, b, B or g; zero at the start) and
    ``surm_right`` (a, a, A or h). Their shapes are in ``structured``.
    """

    adapter_layer_names = ("surm_left", "surm_right")
    other_layers = True
    surm_left: nn.ParameterDict
    surm_right: nn.ParameterDict
    configs: dict[str, SurmConfig]  # type: ignore[assignment]

    def update_layer(self, adapter_name: str, config: SurmConfig) -> None:
        """Add an adapter that starts without effect.

        Raises:
            UserError: A setting does not fit the shape of the layer.
        """
        config.check_layer(self.name, self.out_features, self.in_features)
        super().update_layer(adapter_name, config)

    def initial_parameters(self, config: SurmConfig) -> dict[str, Tensor]:
        """Return factors whose product is zero."""
        return initial_factors(config, self.out_features, self.in_features, self.parameter_dtype())

    def scaled_left(self, adapter: str) -> Tensor:
        """Return s times the left factors."""
        return scaled_left(self.configs[adapter], self.surm_left[adapter])

    def set_to_sum(self, adapter_name: str, weights: dict[str, float], kind: str) -> None:
        """Set the factors so that the update is the weighted sum of others, or the nearest Kronecker product."""
        set_to_sum(self, adapter_name, weights)

    def product(self, x: Tensor, adapter: str) -> Tensor:
        """Return ``s x D^T`` of shape (..., out_features) for x of shape (..., in_features)."""
        config = self.configs[adapter]
        return structured_product(
            config.structure, self.scaled_left(adapter), self.surm_right[adapter], x, self.out_features
        )

    def dense_update(self, adapter: str) -> Tensor:
        """Return s D of shape (out_features, in_features)."""
        config = self.configs[adapter]
        left = scaled_left(config, self.surm_left[adapter])
        return structured_matrix(config.structure, left, self.surm_right[adapter], self.out_features, self.in_features)

    def rank_bound(self, adapter: str) -> int:
        """Return min(d_out, d_in), which circulant, Toeplitz and LDR matrices reach, or less for Kronecker.

        A Kronecker tile has at most rank ``min(n_out/r, r) min(r, n_in/r)``, with the Kronecker rank r.
        """
        limit = min(self.out_features, self.in_features)
        if self.configs[adapter].structure != "kronecker":
            return limit
        rows, cols, height, r = self.surm_left[adapter].shape
        width = self.surm_right[adapter].shape[-1]
        return int(min(limit, rows * cols * kronecker_rank_bound(height * r, r * width, r)))


class SurmSlot(SlotLayer):
    r"""``h' = h + sum over active adapters of act(s D h) + bias`` with a structured D (n x n), see :class:`SurmConfig`.

    Parameters ``surm_left``, ``surm_right`` as in :class:`SurmLinear`, and ``surm_bias`` (n), zero at the start.
    """

    adapter_layer_names = ("surm_left", "surm_right", "surm_bias")
    surm_left: nn.ParameterDict
    surm_right: nn.ParameterDict
    surm_bias: nn.ParameterDict
    configs: dict[str, SurmConfig]  # type: ignore[assignment]

    def update_layer(self, adapter_name: str, config: SurmConfig) -> None:
        """Add an adapter that starts without effect.

        Raises:
            UserError: A setting does not fit the width.
        """
        config.check_layer(self.name, self.width, self.width)
        super().update_layer(adapter_name, config)

    def initial_parameters(self, config: SurmConfig) -> dict[str, Tensor]:
        """Return factors whose product is zero, and a bias of zero."""
        dtype = self.parameter_dtype()
        factors = initial_factors(config, self.width, self.width, dtype)
        return {**factors, "surm_bias": torch.zeros(self.width, dtype=dtype)}

    def residual(self, h: Tensor, adapter: str) -> Tensor:
        """Return ``act(s D h) + bias`` of shape (..., n), for h of the same shape."""
        config = self.configs[adapter]
        left = scaled_left(config, self.surm_left[adapter])
        product = structured_product(config.structure, left, self.surm_right[adapter], h, self.width)
        residual: Tensor = self.activations[adapter](product) + self.surm_bias[adapter]
        return residual
