"""The subspaces of one SMoA layer for pictures: the spectra of W and of the update in each, and the product B A."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smoa_lightning.adapters import gram
from smoa_lightning.adapters.smoa.layer import SmoaLinear
from smoa_lightning.adapters.smoa.subspaces import near_equal_sizes


@dataclass(frozen=True)
class Part:
    """One subspace of a layer.

    Attributes:
        weight: Singular values of its part of W, descending.
        first: Index of the first of them in the spectrum of W, for parts of the spectrum; else 0.
        update: Singular values of its part of the update.
    """

    weight: Tensor
    first: int
    update: Tensor


@torch.no_grad()
def subspace_parts(layer: SmoaLinear, adapter: str, update: Tensor, spectrum: Tensor | None = None) -> list[Part]:
    """Return the subspaces of a layer; empty if they are not parts of W (a single subspace, or noise).

    * Blocks: ``W[rows_k, cols_k]`` and ``D[rows_k, cols_k]``.
    * A grid: its rows of tiles.
    * spectral_energy: ``W_k = U_k S_k V_k^T`` and ``s (B_k A_k) o W_k``.

    Args:
        layer: The layer.
        adapter: Name of the adapter.
        update: The update D of the adapter, of shape (d_out, d_in).
        spectrum: The singular values of W, if they are known.
    """
    plan, config = layer.plan(adapter), layer.configs[adapter]
    weight = layer.unmerged_weight()
    if plan.grid is not None:
        return [Part(_values(weight[rows]), 0, _values(update[rows])) for rows in plan.grid.rows]
    if plan.rows:
        places = [(rows.unsqueeze(1), cols) for rows, cols in zip(plan.rows, plan.cols, strict=True)]
        return [Part(_values(weight[place]), 0, _values(update[place])) for place in places]
    if not plan.masks:
        return []
    spectrum = _values(weight) if spectrum is None else spectrum
    masks = [*plan.masks, weight - sum(plan.masks)]
    ends = [0, *layer.smoa_cut_points[adapter].tolist(), spectrum.numel()]
    parts = []
    for index, ((A, B), mask) in enumerate(zip(layer.factors(adapter), masks, strict=True)):
        own = config.scaling * (B @ A) * mask
        parts.append(Part(spectrum[ends[index] : ends[index + 1]], ends[index], _values(own)))
    return parts


@torch.no_grad()
def modulation(layer: SmoaLinear, adapter: str) -> Tensor:
    """Return ``s B A``, which multiplies W entry by entry, with the rows and columns of a block next to each other.

    For spectral_energy it is the sum of ``s B_k A_k`` over the subspaces. The shape is (d_out, d_in).
    """
    plan, scaling = layer.plan(adapter), layer.configs[adapter].scaling
    products = [scaling * (B @ A) for A, B in layer.factors(adapter)]
    if plan.grid is not None:
        count = len(near_equal_sizes(layer.in_features, layer.configs[adapter].num_subspaces))
        rows = [torch.cat(products[i : i + count], dim=1) for i in range(0, len(products), count)]
        return torch.cat(rows)
    if plan.rows:
        diagonal: Tensor = torch.block_diag(*products)
        return diagonal
    total: Tensor = torch.stack(products).sum(0)
    return total


def _values(matrix: Tensor) -> Tensor:
    return gram.singular_values(matrix.detach().float()).cpu()
