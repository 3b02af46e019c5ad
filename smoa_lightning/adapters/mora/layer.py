"""A linear layer with MoRA adapters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smoa_lightning.adapters.mora import compress
from smoa_lightning.adapters.mora.config import MoraConfig
from smoa_lightning.adapters.tuner import UpdateLayer


class MoraLinear(UpdateLayer):
    r"""``y = x W^T + b + sum over active adapters of s * decompress(M compress(x))`` (arXiv 2405.12130).

    The parameter ``mora_M`` has the shape (r_hat, r_hat).

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model.
    """

    adapter_layer_names = ("mora_M",)
    other_layers = True
    mora_M: nn.ParameterDict
    configs: dict[str, MoraConfig]  # type: ignore[assignment]

    def initial_parameters(self, config: MoraConfig) -> dict[str, Tensor]:
        """Return M of zeros."""
        config.check_layer(self.name, self.out_features, self.in_features)
        size = config.size(self.out_features, self.in_features)
        return {"mora_M": torch.zeros(size, size, dtype=self.parameter_dtype())}

    @torch.no_grad()
    def set_to_sum(self, adapter_name: str, weights: dict[str, float], kind: str) -> None:
        """Set M so that the update is the weighted sum of others."""
        M = self.mora_M[adapter_name].zero_()
        for name, weight in weights.items():
            M += weight * self.configs[name].scaling * self.mora_M[name]

    def product(self, x: Tensor, adapter: str) -> Tensor:
        """Return ``s * decompress(M compress(x))`` of shape (..., out_features)."""
        config, M = self.configs[adapter], self.mora_M[adapter]
        apply = compress.sharing if config.type == "sharing" else compress.rotation
        return apply(x, (M * config.scaling).to(x.dtype), self.out_features)

    def dense_update(self, adapter: str) -> Tensor:
        """Return the additive update D of shape (out_features, in_features), scaling included, in the dtype of M."""
        config, M = self.configs[adapter], self.mora_M[adapter]
        update = compress.sharing_update if config.type == "sharing" else compress.rotation_update
        return update(M * config.scaling, self.out_features, self.in_features)

    def rank_bound(self, adapter: str) -> int:
        """Return r_hat for ``sharing``, r_hat times the number of pieces with an output for ``rotation``.

        The bound is at most min(d_out, d_in).
        """
        size = self.mora_M[adapter].shape[0]
        pieces = 1
        if self.configs[adapter].type == "rotation":
            pieces = min(-(-self.in_features // size), -(-self.out_features // size))
        return int(min(size * pieces, self.out_features, self.in_features))
