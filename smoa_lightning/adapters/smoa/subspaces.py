"""The rows, columns and singular directions of each subspace: pure functions of one weight matrix.

Spectra are computed in float64 (:mod:`smoa_lightning.adapters.gram`). The results are *frozen state*: the adapter file
holds index orders and cut points. A rounded weight or a different number of threads can change the order, and then a
trained row would belong to a different output coordinate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from smoa_lightning.adapters.gram import one_thread, spectrum, to_float64

UNSET = -1  # fills an index buffer until its values are known


def near_equal_sizes(total: int, parts: int) -> list[int]:
    """Split ``total`` into ``parts`` near-equal sizes; the first sizes are larger by one.

    >>> near_equal_sizes(7, 3)
    [3, 2, 2]
    """
    share, rest = divmod(total, parts)
    return [share + (index < rest) for index in range(parts)]


def is_permutation(order: Tensor) -> bool:
    """Whether an order holds every index from 0 to its length - 1 exactly once.

    >>> is_permutation(torch.tensor([2, 0, 1])), is_permutation(torch.tensor([2, 0, 2]))
    (True, False)
    """
    return torch.equal(order.sort().values, torch.arange(order.numel(), dtype=order.dtype, device=order.device))


def spectral_scores(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energy-weighted mean index of the singular directions of each coordinate (arXiv 2605.21147).

    ``row_score_i = sum_j j U_ij^2 s_j^2 / sum_j U_ij^2 s_j^2``, j = 0..q-1, with ``W = U diag(s) V^T``; the column
    score is the same with V. A small score means principal directions. A coordinate without energy has score q, the
    last place.

    Args:
        weight: W of shape (d_out, d_in).

    Returns:
        ``(row_scores, col_scores)`` of shapes (d_out,) and (d_in,), float64.
    """
    vectors, values, left = spectrum(weight)
    matrix = to_float64(weight)
    with one_thread(min(matrix.shape)):
        # For the other side v_ij^2 s_j^2 = ((W^T U)_ij)^2: no division by small singular values.
        own = (vectors * values).square()
        other = ((matrix.T if left else matrix) @ vectors).square()
        scores = _mean_index(own), _mean_index(other)
    return scores if left else (scores[1], scores[0])


def spectral_orders(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and columns of a weight by rising spectral score, as int64 permutations on the CPU."""
    rows, cols = (scores.argsort(stable=True).cpu() for scores in spectral_scores(weight))
    return rows, cols


def _mean_index(energy: Tensor) -> Tensor:
    index = torch.arange(energy.shape[1], dtype=energy.dtype, device=energy.device)
    total = energy.sum(1)
    mean = (energy @ index) / total.clamp_min(torch.finfo(energy.dtype).tiny)
    return torch.where(total > 0, mean, torch.full_like(mean, energy.shape[1]))


def block_order(order: Tensor, num_subspaces: int) -> Tensor:
    """Cut an index order into near-equal blocks and sort each block; the update is the same, the file is stable."""
    parts = torch.split(order, near_equal_sizes(order.numel(), num_subspaces))
    return torch.cat([part.sort().values for part in parts]).to(torch.int32)


def block_orders(
    weight: Tensor,
    partition: str,
    num_subspaces: int,
    seed: int = 0,
    spectral: Callable[[Tensor], tuple[Tensor, Tensor]] = spectral_orders,
) -> tuple[Tensor, Tensor]:
    """Order rows and columns so that consecutive near-equal parts are the blocks of a partition.

    Args:
        weight: W of shape (d_out, d_in); its values matter for ``spectral_blocks`` only.
        partition: ``spectral_blocks``, ``contiguous_blocks`` or ``random_blocks``.
        num_subspaces: K, the number of blocks.
        seed: Seed of ``random_blocks``.
        spectral: Returns the orders of ``spectral_blocks``, computed or cached.

    Returns:
        ``(row_order, col_order)``: int32 permutations on the CPU, ascending inside each block.
    """
    d_out, d_in = weight.shape
    if partition == "spectral_blocks" and num_subspaces > 1:
        rows, cols = spectral(weight)
    elif partition == "random_blocks":
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(d_out, generator=generator)
        cols = torch.randperm(d_in, generator=generator)
    else:
        rows, cols = torch.arange(d_out), torch.arange(d_in)
    return block_order(rows, num_subspaces), block_order(cols, num_subspaces)


def energy_cuts(singular_values: Tensor, num_subspaces: int, energy: str = "l1") -> Tensor:
    """Cut the singular directions at the quantiles k/K of cumulative energy (arXiv 2601.07507).

    ``E(i) = sum_{j<=i} e_j / sum_j e_j`` with e = s (``l1``), s^2 (``l2``) or 1 (``count``). Cut k is the smallest
    number of leading directions with E >= k/K, moved if necessary so that no subspace is empty.

    Args:
        singular_values: s of shape (q,), descending.
        num_subspaces: K, at most q.
        energy: ``l1``, ``l2`` or ``count``.

    Returns:
        K - 1 cut points, int32, strictly increasing; subspace k has the directions cut[k-1] .. cut[k] - 1.

    >>> energy_cuts(torch.tensor([6.0, 2.0, 2.0, 2.0]), 2).tolist()
    [1]
    """
    values = singular_values.detach().to(torch.float64).cpu()
    count = values.numel()
    weights = {"l1": values, "l2": values.square(), "count": torch.ones_like(values)}[energy]
    if not weights.sum() > 0:
        weights = torch.ones_like(values)  # a zero matrix has no energy: cut by number
    cumulative = weights.cumsum(0) / weights.sum()
    cuts: list[int] = []
    for index in range(1, num_subspaces):
        reached = int((cumulative < index / num_subspaces - 1e-12).sum()) + 1
        lowest = cuts[-1] + 1 if cuts else 1
        cuts.append(min(max(reached, lowest), count - (num_subspaces - index)))
    return torch.tensor(cuts, dtype=torch.int32)


def energy_masks(weight: Tensor, cuts: Tensor) -> list[Tensor]:
    """Return the spectral parts ``W_k = U_k S_k V_k^T`` of all subspaces but the last, which is W minus the others.

    They are computed as projections ``U_k U_k^T W`` (or ``W V_k V_k^T``), so that signs of singular vectors cancel.

    Args:
        weight: W of shape (d_out, d_in).
        cuts: The K - 1 cut points of :func:`energy_cuts`.

    Returns:
        K - 1 matrices of shape (d_out, d_in), of the dtype and on the device of the weight.
    """
    vectors, _, left = spectrum(weight)
    matrix = to_float64(weight)
    masks = []
    start = 0
    for stop in cuts.tolist():
        part = vectors[:, start:stop]
        mask = part @ (part.T @ matrix) if left else (matrix @ part) @ part.T
        masks.append(mask.to(weight))
        start = stop
    return masks


def uniform_modulation(seed: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return seeded noise, uniform in [0, 1), of shape (d_out, d_in); entry (i, j) is a hash of (seed, i * d_in + j).

    A counter-based generator (splitmix64) in integer arithmetic gives the same numbers on every device, with any number
    of threads and in every version of torch. So one saved seed replaces a dense matrix.
    """
    rows, cols = shape
    key = int(_mix(torch.tensor(seed + 1)))  # without mixing, nearby seeds would give shifted copies
    result = torch.empty(shape, dtype=dtype, device=device)
    step = max(1, (1 << 20) // max(cols, 1))  # limits the int64 temporaries to about 8 MB each
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        counter = torch.arange(start * cols, stop * cols, dtype=torch.int64, device=device)
        unit = _shift(_mix(counter ^ key), 40).to(torch.float32) * 2.0**-24
        result[start:stop] = unit.view(stop - start, cols).to(dtype)
    return result


def _mix(state: Tensor) -> Tensor:
    """Splitmix64 of int64: products wrap around as intended, and its unsigned constants are written as signed."""
    state = state * -7046029254386353131
    state = (state ^ _shift(state, 30)) * -4658895280553007687
    state = (state ^ _shift(state, 27)) * -7723592293110705685
    return state ^ _shift(state, 31)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own keeps the sign)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
