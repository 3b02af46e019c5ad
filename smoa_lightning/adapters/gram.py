"""Singular values and vectors of a matrix W, from the eigenvalues of its smaller Gram matrix in float64.

The smaller of W W^T and W^T W has the squares of the singular values of W as eigenvalues. This is several times faster
than a singular value decomposition.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

OVERSAMPLING = 8  # columns of a sketch beyond the rank
MISSED = 1e-12  # share of ||W||_F^2 that a sketch may miss: rounding to float32 leaves about 1e-15
SMALL = 1024  # up to this side a decomposition uses one thread, and several layers are decomposed in parallel


def spectrum(weight: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Eigen-decompose the smaller Gram matrix of a weight in float64.

    Args:
        weight: W of shape (d_out, d_in), any floating dtype.

    Returns:
        ``(vectors, singular_values, left)``: q = min(d_out, d_in) singular vectors as columns, the singular values in
        descending order, and whether the vectors are left (U, d_out x q) or right vectors (V, d_in x q).
    """
    matrix = to_float64(weight)
    left = matrix.shape[0] <= matrix.shape[1]
    with one_thread(min(matrix.shape)):
        values, vectors = torch.linalg.eigh(_gram(matrix))
    return vectors.flip(1), values.flip(0).clamp_min(0).sqrt(), left


def singular_values(weight: Tensor) -> Tensor:
    """Return the min(d_out, d_in) singular values of a matrix, descending, float64; a third of the work of the vectors.

    For a float32 matrix the error is at most about 1e-7 of the largest value, below the rounding of the entries.
    """
    matrix = to_float64(weight)
    with one_thread(min(matrix.shape)):
        values: Tensor = torch.linalg.eigvalsh(_gram(matrix)).flip(0).clamp_min(0).sqrt()
        return values


def low_rank_singular_values(weight: Tensor, rank: int) -> Tensor | None:
    """Return what :func:`singular_values` does for a matrix of at most this rank; None if the matrix has more.

    The columns of Y = W Omega, with Omega (d_in x (rank + 8)) random, span the range of W. So with Y = Q R, the
    singular values of Q^T W are those of W, and the others are 0 (Halko, Martinsson and Tropp 2011, arXiv 0909.4061).
    The cost is d_out d_in rank, not d_out d_in min(d_out, d_in). None is returned as well if that would not be less.
    """
    limit, width = min(weight.shape), rank + OVERSAMPLING
    if 4 * width > limit:
        return None
    matrix = to_float64(weight)
    random = torch.Generator().manual_seed(0)
    sketch = torch.randn(matrix.shape[1], width, dtype=torch.float64, generator=random).to(matrix.device)
    basis, _ = torch.linalg.qr(matrix @ sketch)
    values = torch.linalg.svdvals(basis.T @ matrix)
    whole = matrix.square().sum()
    if (whole - values.square().sum()).abs() > MISSED * whole:
        return None
    return torch.cat([values, values.new_zeros(limit - width)])


def to_float64(weight: Tensor) -> Tensor:
    """Return a matrix in float64, on its device, or on the CPU for a device without float64."""
    device = torch.device("cpu") if weight.device.type == "mps" else weight.device
    return weight.detach().to(device=device, dtype=torch.float64)


def _gram(matrix: Tensor) -> Tensor:
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


@contextmanager
def one_thread(size: int) -> Iterator[None]:
    """Decompose small matrices with one thread: more threads gain little, and are ten times slower on busy cores."""
    threads = torch.get_num_threads()
    if size > SMALL or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
