"""A linear layer with KRAdapter adapters, and its update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smoa_lightning.adapters.kradapter.config import KRAdapterConfig
from smoa_lightning.adapters.tuner import UpdateLayer


def khatri_rao_update(U: Tensor, V: Tensor, out_features: int, in_features: int) -> Tensor:
    """Return the update of shape (d_out, d_in): row i is ``V_i (x) U_i`` cut at max(d_out, d_in), or its transpose.

    Args:
        U: Shape (m, k_1) with m = min(d_out, d_in).
        V: Shape (m, k_2) with k_1 k_2 >= max(d_out, d_in).
        out_features: d_out.
        in_features: d_in.
    """
    rows = (V[:, :, None] * U[:, None]).flatten(1)[:, : max(out_features, in_features)]
    return rows if out_features <= in_features else rows.T


class KRAdapterLinear(UpdateLayer):
    r"""``y = x W^T + b + sum over active adapters of s * x D^T`` with a Khatri-Rao product D (arXiv 2508.00230).

    Parameters ``kradapter_U`` (m, k_1) and ``kradapter_V`` (m, k_2) are float32, or float64 for a float64 layer. Every
    product forms D, since a product by parts costs as much.

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model.
    """

    adapter_layer_names = ("kradapter_U", "kradapter_V")
    kradapter_U: nn.ParameterDict
    kradapter_V: nn.ParameterDict
    configs: dict[str, KRAdapterConfig]  # type: ignore[assignment]

    def initial_parameters(self, config: KRAdapterConfig) -> dict[str, Tensor]:
        """Return U of zeros, and V at random."""
        config.check_layer(self.name, self.out_features, self.in_features)
        smaller, dtype = min(self.out_features, self.in_features), self.parameter_dtype()
        k1, k2 = config.columns(self.out_features, self.in_features)
        V = nn.init.kaiming_uniform_(torch.empty(smaller, k2, dtype=dtype), a=5)
        return {"kradapter_U": torch.zeros(smaller, k1, dtype=dtype), "kradapter_V": V}

    def product(self, x: Tensor, adapter: str) -> Tensor:
        """Return ``s * x D^T`` of shape (..., out_features)."""
        return x @ self.dense_update(adapter).to(x.dtype).T

    def dense_update(self, adapter: str) -> Tensor:
        """Return the additive update of shape (out_features, in_features), scaling included."""
        U = self.kradapter_U[adapter] * self.configs[adapter].scaling
        return khatri_rao_update(U, self.kradapter_V[adapter], self.out_features, self.in_features)

    @torch.no_grad()
    def set_to_sum(self, adapter_name: str, weights: dict[str, float], kind: str) -> None:
        """Set V_i and U_i to the outer product that is nearest to the sum of those of the others, in every row i.

        A row of D is the outer product of V_i and U_i, row by row, cut at N entries. The sum is taken before the cut.
        """
        if not weights:
            return  # none of the adapters has this layer; U is zero
        terms = ((w * self.configs[n].scaling, self.kradapter_V[n], self.kradapter_U[n]) for n, w in weights.items())
        rows = sum(w * V.double()[:, :, None] * U.double()[:, None] for w, V, U in terms)
        left, S, right = torch.linalg.svd(rows, full_matrices=False)
        root = S[:, :1].sqrt()
        self.kradapter_V[adapter_name].copy_(root * left[:, :, 0])
        self.kradapter_U[adapter_name].copy_(root * right[:, 0])

    def rank_bound(self, adapter: str) -> int:
        """Return min(d_out, d_in)."""
        return min(self.out_features, self.in_features)
