r"""Dense products of structured matrices: small ones multiplied, others from their displacement in O(n^2), not O(n^3).

A matrix P with ``P_ij - P_{i-1,j-1} = D_ij`` is the sum of D along its diagonals. For products of Toeplitz-like
matrices D has a small rank, so that D is one thin product (Kailath, Kung and Morf, J. Math. Anal. Appl. 68, 1979).
With indices from 0, and for i, j >= 1:

* ``P = T(a) T(b)``: ``D_ij = a_i b_j - a_{n-i} b_{n-j}``. The terms of ``sum_k a_{|i-k|} b_{|k-j|}`` move along the
  diagonal: the one of k = 0 enters, that of k = n leaves;
* ``P = sum_m C(g_m) S(h_m)``: ``D_ij = -2 sum_m g_m[i] h_m[n-j]``, from ``Z_1 P - P Z_{-1} = 2 sum_m g_m (J h_m)^T``.

D has the first row and the first column of P as its own. Both are products with one vector, through FFT.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smoa_lightning.adapters.surm.matrices import circulant, embedded, reversal, skew_circulant, toeplitz
from smoa_lightning.adapters.tuner.autocast import without_autocast

# m n up to which one matrix product (of order m n^3) is as fast, by whether the dtype has 16 bits. Measured in float32
# on a server CPU with AVX2, torch 2.13; the other value is an estimate for fast bfloat16 GEMMs.
MULTIPLIED_UP_TO = {False: 256, True: 2048}
BLOCK = 32  # rows that one triangular product sums


def toeplitz_product(a: Tensor, b: Tensor, rows: int, cols: int, dtype: torch.dtype) -> Tensor:
    """Return the leading (..., rows, cols) part of ``T(a) T(b)``, T symmetric, for a and b of shape (..., n)."""
    if _is_small(a.shape[-1], dtype):
        return toeplitz(a.to(dtype), rows=rows) @ toeplitz(b.to(dtype), cols=cols)
    a, b = _at_least_float32(a, b, dtype)
    row, column = _symmetric_product(b, a)[..., :cols], _symmetric_product(a, b)[..., :rows]
    left = torch.stack([_inner(a, rows), -_inner(reversal(a), rows)], -1)
    right = torch.stack([_inner(b, cols), _inner(reversal(b), cols)], -2)
    return _from_displacement(left, right, row, column).to(dtype)


def low_displacement_product(g: Tensor, h: Tensor, rows: int, cols: int, dtype: torch.dtype) -> Tensor:
    """Return the leading (..., rows, cols) part of ``sum_m C(g_m) S(h_m)``, for g and h of shape (..., m, n)."""
    if _is_small(g.shape[-2] * g.shape[-1], dtype):  # one product of (..., rows, m n) and (..., m n, cols)
        C = circulant(g.to(dtype), rows=rows).transpose(-3, -2).flatten(-2)
        return C @ skew_circulant(h.to(dtype), cols=cols).flatten(-3, -2)
    g, h = _at_least_float32(g, h, dtype)
    column = _wrapped_product(g, h, 1)[..., :rows]
    row = _wrapped_product(reversal(g), reversal(h, -1), -1)[..., :cols]  # S(h)^T C(g)^T e_0
    left, right = -2 * _inner(g, rows).transpose(-1, -2), _inner(reversal(h), cols)
    return _from_displacement(left, right, row, column).to(dtype)


def diagonal_sums(x: Tensor) -> Tensor:
    """Return ``y_ij = sum_{k <= min(i, j)} x_{i-k, j-k}`` for x of shape (..., rows, cols).

    >>> diagonal_sums(torch.tensor([[1., 2., 3.], [4., 5., 6.]]))
    tensor([[1., 2., 3.],
            [4., 6., 8.]])
    """
    y: Tensor = _DiagonalSums.apply(x, False)  # type: ignore[no-untyped-call]
    return y


class _DiagonalSums(torch.autograd.Function):
    """The transpose of this linear map sums along the diagonals from their other ends."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, from_end: bool) -> Tensor:
        ctx.from_end = from_end
        return _summed(x, from_end)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        y: Tensor = _DiagonalSums.apply(grad, not ctx.from_end)  # type: ignore[no-untyped-call]
        return y, None


def _summed(x: Tensor, from_end: bool) -> Tensor:
    """Sum along the diagonals: with rows one entry longer than those of x in memory, a diagonal becomes a column.

    Columns are summed by products with triangular matrices of ones, within blocks of rows and then over blocks. Unlike
    ``torch.cumsum`` these are deterministic on a GPU.
    """
    rows, cols = x.shape[-2:]
    if rows > cols:
        return _summed(x.transpose(-1, -2), from_end).transpose(-1, -2)
    count, width = -(-rows // BLOCK), rows + cols
    memory = x.new_zeros(*x.shape[:-2], count * BLOCK * width)
    diagonal = (*memory.stride()[:-1], width - 1, 1)
    memory.as_strided(x.shape, diagonal).copy_(x)
    blocks = memory.unflatten(-1, (count, BLOCK, width))
    with without_autocast(x.device.type):
        sums = _ones(BLOCK, 0, x, from_end) @ blocks
        if count > 1:
            totals = sums[..., 0 if from_end else -1, :]
            sums += (_ones(count, -1, x, from_end) @ totals).unsqueeze(-2)
    found: Tensor = sums.flatten(-3).as_strided(x.shape, diagonal).contiguous()
    return found


def _ones(size: int, diagonal: int, like: Tensor, upper: bool) -> Tensor:
    lower = like.new_ones(size, size).tril(diagonal)
    return lower.transpose(0, 1) if upper else lower


def _is_small(size: int, dtype: torch.dtype) -> bool:
    return size <= MULTIPLIED_UP_TO[dtype.itemsize == 2]


def _at_least_float32(a: Tensor, b: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(dtype, torch.float32)
    return a.to(wide), b.to(wide)


def _from_displacement(left: Tensor, right: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return P from the factors of D for i, j >= 1 (zero at index 0), and its first row and column."""
    rows, cols = column.shape[-1], row.shape[-1]
    first_row, first_column = _first(rows, column), _first(cols, row)
    left = torch.cat([left, first_row.unsqueeze(-1), _inner(column, rows).unsqueeze(-1)], -1)
    right = torch.cat([right, row.unsqueeze(-2), first_column.unsqueeze(-2)], -2)
    with without_autocast(left.device.type):
        y: Tensor = diagonal_sums(left @ right)
    return y


def _first(size: int, like: Tensor) -> Tensor:
    first = like.new_zeros(*like.shape[:-1], size)
    first[..., 0] = 1
    return first


def _inner(x: Tensor, size: int) -> Tensor:
    """``x_i`` for 1 <= i < size, and zero at 0."""
    return torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:size]], -1)


def _symmetric_product(t: Tensor, x: Tensor) -> Tensor:
    """``T(t) x`` for vectors x, through a circulant matrix of twice the size."""
    n = t.shape[-1]
    product: Tensor = torch.fft.irfft(torch.fft.rfft(embedded(t, 2 * n)) * torch.fft.rfft(x, 2 * n), 2 * n)
    return product[..., :n]


def _wrapped_product(c: Tensor, x: Tensor, sign: int) -> Tensor:
    """``sum_m C(c_m) x_m`` (sign 1) or ``sum_m S(x_m) c_m`` (sign -1), for c and x of shape (..., m, n)."""
    n = c.shape[-1]
    spectrum = (torch.fft.rfft(c, 2 * n) * torch.fft.rfft(x, 2 * n)).sum(-2)
    product: Tensor = torch.fft.irfft(spectrum, 2 * n)
    return product[..., :n] + sign * product[..., n:]
