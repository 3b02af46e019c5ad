"""A linear layer with ABBA adapters, and its mathematics in three functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from smoa_lightning.adapters.abba.config import AbbaConfig
from smoa_lightning.adapters.tuner import UpdateLayer
from smoa_lightning.adapters.tuner.weighted import truncated_sum

Pairs = tuple[Tensor, Tensor, Tensor, Tensor]

OVERSAMPLING, POWER_ITERATIONS = 10, 10  # of the randomised decomposition; the authors take 0 and 10


def leading_factors(weight: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return A (r, d_in) and B (d_out, r) with B A near the best approximation of W of rank r, and A A^T = B^T B.

    The singular directions come from a randomised decomposition (Halko et al., arXiv 0909.4061).
    """
    q = min(r + OVERSAMPLING, *weight.shape)
    u, s, v = torch.svd_lowrank(weight, q=q, niter=POWER_ITERATIONS)
    root = s[:r].sqrt()
    return (v[:, :r] * root).T.contiguous(), (u[:, :r] * root).contiguous()


def hadamard_update(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> Tensor:
    """Return ``(B1 A1) o (B2 A2)`` of shape (d_out, d_in)."""
    return (B1 @ A1) * (B2 @ A2)


def khatri_rao_product(x: Tensor, A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> Tensor:
    """Return ``x ((B1 A1) o (B2 A2))^T`` without a matrix of the size of W, for x of shape (..., d_in)."""
    A, B = low_rank_factors(A1, B1, A2, B2)
    return (x @ A.to(x.dtype).T) @ B.to(x.dtype).T


def low_rank_factors(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> tuple[Tensor, Tensor]:
    """Return A (r_1 r_2, d_in) and B (d_out, r_1 r_2) with ``B A = (B1 A1) o (B2 A2)``.

    The rows of A are all products of a row of A1 and a row of A2, the columns of B all products of a column of B1 and a
    column of B2.
    """
    return (A1[:, None] * A2[None]).flatten(0, 1), (B1[:, :, None] * B2[:, None]).flatten(1)


class AbbaLinear(UpdateLayer):
    r"""``y = x W^T + b + sum over active adapters of s * x ((B_1 A_1) o (B_2 A_2))^T`` (arXiv 2505.14238).

    Parameters ``abba_A1`` and ``abba_A2`` have the shape (r, d_in), ``abba_B1`` and ``abba_B2`` (d_out, r). They are
    float32, or float64 for a float64 layer. W is read once, when an adapter is made.

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model.
    """

    adapter_layer_names = ("abba_A1", "abba_B1", "abba_A2", "abba_B2")
    abba_A1: nn.ParameterDict
    abba_B1: nn.ParameterDict
    abba_A2: nn.ParameterDict
    abba_B2: nn.ParameterDict
    configs: dict[str, AbbaConfig]  # type: ignore[assignment]

    def initial_parameters(self, config: AbbaConfig) -> dict[str, Tensor]:
        """Return the leading singular directions of W, A_2 at random and B_2 of zeros."""
        config.check_layer(self.name, self.out_features, self.in_features)
        dtype, shapes = self.parameter_dtype(), ((config.r, self.in_features), (self.out_features, config.r))
        if self.weight_is_absent():
            A1, B1 = (torch.zeros(shape, dtype=dtype) for shape in shapes)
        else:
            A1, B1 = leading_factors(self.unmerged_weight().detach().to(dtype), config.r)
        A2 = nn.init.kaiming_uniform_(torch.empty(shapes[0], dtype=dtype), a=math.sqrt(5))
        return {"abba_A1": A1, "abba_B1": B1, "abba_A2": A2, "abba_B2": torch.zeros(shapes[1], dtype=dtype)}

    def _pairs(self, adapter: str) -> Pairs:
        """Return A1, B1, A2 and s B2."""
        A1, B1, A2, B2 = (getattr(self, name)[adapter] for name in self.adapter_layer_names)
        return A1, B1, A2, B2 * self.configs[adapter].scaling

    def product(self, x: Tensor, adapter: str) -> Tensor:
        """Return ``s * x ((B_1 A_1) o (B_2 A_2))^T``; the cheaper one of two exact ways, for large batches."""
        r, pairs = self.configs[adapter].r, self._pairs(adapter)
        if r * r * (self.in_features + self.out_features) < self.in_features * self.out_features:
            return khatri_rao_product(x, *pairs)
        return x @ hadamard_update(*pairs).to(x.dtype).T

    def dense_update(self, adapter: str) -> Tensor:
        """Return the additive update of shape (out_features, in_features), scaling included."""
        return hadamard_update(*self._pairs(adapter))

    @torch.no_grad()
    def set_to_sum(self, adapter_name: str, weights: dict[str, float], kind: str) -> None:
        """Set B_1 A_1 to ones, and B_2 A_2 to the weighted sum of others (``linear``) or near it (``svd``)."""
        ones_A, ones_B, A2, B2 = (getattr(self, name)[adapter_name] for name in self.adapter_layer_names)
        for factor in (ones_A, ones_B, A2, B2):
            factor.zero_()
        ones_A[0], ones_B[:, 0] = 1, 1
        if kind == "svd":
            A, B = truncated_sum(self, weights, self.configs[adapter_name].r)
        else:
            pairs = [low_rank_factors(*self._pairs(name)) for name in weights]
            A = torch.cat([one for one, _ in pairs])
            B = torch.cat([w * two for w, (_, two) in zip(weights.values(), pairs, strict=True)], dim=1)
        A2[: len(A)], B2[:, : len(A)] = A, B

    def rank_bound(self, adapter: str) -> int:
        """Return r^2, at most min(d_out, d_in)."""
        return min(self.configs[adapter].r ** 2, self.out_features, self.in_features)
