"""Dense circulant, skew-circulant and symmetric Toeplitz matrices from their first columns."""

from __future__ import annotations

import torch
from torch import Tensor


def _shifted_rows(sequence: Tensor, rows: int, cols: int) -> Tensor:
    """``M_ij = sequence_{(j-i) mod P}`` for a sequence of period P, of shape (..., rows, cols).

    The sequence is repeated and cut into rows whose length is -1 modulo P, so that each row starts one entry earlier.
    Unlike indexing, this has a backward of plain sums.
    """
    period = sequence.shape[-1]
    width = 2 * period - 1
    while width < cols:
        width += period
    count = -(-rows * width // period)
    flat = sequence.unsqueeze(-2).expand(*sequence.shape[:-1], count, period).flatten(-2)
    matrix: Tensor = flat[..., : rows * width].unflatten(-1, (rows, width))
    return matrix[..., :cols]


def circulant(c: Tensor, rows: int | None = None, cols: int | None = None) -> Tensor:
    """Return C(c) of shape (..., n, n) for c of shape (..., n); ``rows`` and ``cols`` crop it.

    >>> circulant(torch.tensor([1, 2, 3]))
    tensor([[1, 3, 2],
            [2, 1, 3],
            [3, 2, 1]])
    """
    n = c.shape[-1]
    return _shifted_rows(reversal(c), rows or n, cols or n)


def skew_circulant(h: Tensor, rows: int | None = None, cols: int | None = None) -> Tensor:
    """Return S(h) of shape (..., n, n) for h of shape (..., n): a circulant with negated wrapped terms.

    >>> skew_circulant(torch.tensor([1, 2, 3]))
    tensor([[ 1, -3, -2],
            [ 2,  1, -3],
            [ 3,  2,  1]])
    """
    n = h.shape[-1]
    return _shifted_rows(reversal(torch.cat([h, -h], -1)), rows or n, cols or n)


def toeplitz(t: Tensor, rows: int | None = None, cols: int | None = None) -> Tensor:
    """Return the symmetric T(t) of shape (..., n, n) for t of shape (..., n).

    >>> toeplitz(torch.tensor([1, 2, 3]))
    tensor([[1, 2, 3],
            [2, 1, 2],
            [3, 2, 1]])
    """
    n = t.shape[-1]
    return _shifted_rows(embedded(t, 2 * n - 1), rows or n, cols or n)


def reversal(c: Tensor, sign: int = 1) -> Tensor:
    """Return ``c_0`` and ``sign c_{n-k}`` for k >= 1: the first column of ``C(c)^T`` (1) or of ``S(c)^T`` (-1)."""
    return torch.cat([c[..., :1], sign * c[..., 1:].flip(-1)], -1)


def embedded(t: Tensor, length: int) -> Tensor:
    """Return the first column of a circulant whose leading n x n part is T(t); its length is at least 2n - 1."""
    gap = t.new_zeros(*t.shape[:-1], length - 2 * t.shape[-1] + 1)
    return torch.cat([t, gap, t[..., 1:].flip(-1)], -1)
