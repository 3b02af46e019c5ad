"""The published recipe of SMoA v2; the speed scripts compare with it.

It follows the description of arXiv 2605.21147 and of its research code, not the code itself:

* a float32 copy of every diagonal block is stored as an anchor;
* a singular value decomposition of every target is computed at injection, and again at load;
* every forward pass writes the blocks (B_k A_k) o anchor_k into a dense matrix by index assignment, and multiplies x
  with this matrix in a second full product;
* autograd stores this matrix for the backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def svd_orders(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column order by the energy-weighted mean index of the singular directions (float32 SVD)."""
    u, s, vh = torch.linalg.svd(weight.detach().float(), full_matrices=False)
    index = torch.arange(s.numel(), dtype=torch.float32, device=weight.device)

    def order(vectors: Tensor) -> Tensor:
        energy = vectors.square() * s.square()
        return ((energy @ index) / energy.sum(1).clamp_min(1e-30)).argsort()

    return order(u), order(vh.t())


class RecipeLinear(nn.Module):
    """``y = x W^T + b + s x D^T`` with ``D[rows_k, cols_k] = (B_k A_k) o anchor_k``; each call makes the dense D again.

    Args:
        base_layer: The frozen layer.
        r: Total rank of all blocks.
        num_subspaces: K.
        decompose: Compute the SVD. Otherwise the order of rows and columns is random (to time only the step).
    """

    def __init__(self, base_layer: nn.Linear, r: int = 32, num_subspaces: int = 2, decompose: bool = True) -> None:
        super().__init__()
        self.base_layer = base_layer
        weight = base_layer.weight.detach()
        rows, cols = svd_orders(weight) if decompose else (torch.randperm(size) for size in weight.shape)
        self.rows, self.cols = rows.chunk(num_subspaces), cols.chunk(num_subspaces)
        blocks = [weight.float()[row][:, col].clone() for row, col in zip(self.rows, self.cols, strict=True)]
        self.anchors = nn.ParameterList([nn.Parameter(block, requires_grad=False) for block in blocks])
        rank = r // num_subspaces
        self.A = nn.ParameterList([nn.Parameter(torch.randn(rank, col.numel()) * 0.02) for col in self.cols])
        self.B = nn.ParameterList([nn.Parameter(torch.zeros(row.numel(), rank)) for row in self.rows])

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x of shape (..., d_in)."""
        delta = torch.zeros_like(self.base_layer.weight)
        for row, col, anchor, a, b in zip(self.rows, self.cols, self.anchors, self.A, self.B, strict=True):
            delta[row.unsqueeze(1), col] = ((b @ a) * anchor).to(delta.dtype)
        result: Tensor = self.base_layer(x) + F.linear(x, delta)
        return result


def attach_recipe(model: nn.Module, targets: list[str], r: int, num_subspaces: int, decompose: bool) -> nn.Module:
    """Replace every linear layer with one of these last names by a :class:`RecipeLinear`."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], RecipeLinear(module, r, num_subspaces, decompose))
    return model
