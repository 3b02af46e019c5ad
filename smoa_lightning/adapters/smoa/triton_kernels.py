"""Triton kernels that pass over a frozen weight once: the update added to it, and the products of its gradient.

With M the modulator of a term (L R) o M, :func:`fill` writes ``W + s M o (L R)``. It reads W (and M, if that is another
matrix) and writes the result: 4 bytes an element in 16 bits; separate operations of torch move 8. :func:`thin_products`
returns ``(H R^T, L^T H)`` of ``H = G o M`` and writes no H. It moves 5 bytes an element, where torch moves 10, and
about 4 instead of 12 bytes an element of W if two blocks select rows and columns of M.

L R and both sums are in float32, so results are at least as exact as those of torch. All sums have a fixed order: equal
inputs give equal bits. Imported only where :func:`smoa_lightning.adapters.smoa.kernels.kernels_for` finds Triton.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

FILL = {"BLOCK_M": 64, "BLOCK_N": 128, "num_warps": 4}
THIN = {"BLOCK_M": 64, "BLOCK_N": 256, "STEPS": 16, "num_warps": 8}
MOST_RANK = 128  # of L and R: factors of a tile are kept in registers


def padded(rank: int) -> int:
    """Return the rank of a tile's product: a power of two, at least 16."""
    return max(16, int(triton.next_power_of_2(rank)))


@triton.jit
def _fill(
    out, weight, modulator, left, right, scaling, rows, cols, rank, left_stride, right_stride,
    BASE: tl.constexpr, SAME: tl.constexpr, RANK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    i = (tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    j = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    k = tl.arange(0, RANK)
    place = i.to(tl.int64) * cols + j
    inside = (i < rows) & (j < cols)
    m = tl.load(modulator + place, mask=inside, other=0.0)
    a = tl.load(left + i * left_stride + k[None, :], mask=(i < rows) & (k[None, :] < rank), other=0.0)
    b = tl.load(right + k[:, None] * right_stride + j, mask=(k[:, None] < rank) & (j < cols), other=0.0)
    value = scaling * tl.dot(a, b) * m.to(tl.float32)
    if BASE:
        w = m if SAME else tl.load(weight + place, mask=inside, other=0.0)
        value += w.to(tl.float32)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _thin(
    full, modulator, left, right, row_index, col_index, by_columns, by_rows,
    rows, cols, rank, modulator_stride, left_stride, right_stride,
    GATHER: tl.constexpr, RANK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    j = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    k = tl.arange(0, RANK)
    b = tl.load(right + k[:, None] * right_stride + j, mask=(k[:, None] < rank) & (j < cols), other=0.0)
    column = tl.load(col_index + j, mask=j < cols, other=0) if GATHER else j
    total = tl.full((RANK, BLOCK_N), 0.0, tl.float32)
    for step in range(STEPS):
        i = ((tl.program_id(1) * STEPS + step) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
        inside = (i < rows) & (j < cols)
        row = tl.load(row_index + i, mask=i < rows, other=0) if GATHER else i
        g = tl.load(full + i.to(tl.int64) * cols + j, mask=inside, other=0.0)
        m = tl.load(modulator + row.to(tl.int64) * modulator_stride + column, mask=inside, other=0.0)
        h = (g.to(tl.float32) * m.to(tl.float32)).to(g.dtype)
        a = tl.load(left + i * left_stride + k[None, :], mask=(i < rows) & (k[None, :] < rank), other=0.0)
        total += tl.dot(tl.trans(a), h)
        part = by_columns + (tl.program_id(0) * rows + i).to(tl.int64) * rank + k[None, :]
        tl.store(part, tl.dot(h, tl.trans(b)), mask=(i < rows) & (k[None, :] < rank))
    part = by_rows + (tl.program_id(1) * rank + k[:, None]).to(tl.int64) * cols + j
    tl.store(part, total, mask=(k[:, None] < rank) & (j < cols))


def fill(
    out: Tensor, weight: Tensor, modulator: Tensor, left: Tensor, right: Tensor, scaling: float, include_base: bool
) -> None:
    """Write ``W + s M o (L R)``, or ``s M o (L R)`` without the base, into ``out``.

    Args:
        out: Result of shape (d_out, d_in), contiguous like W and M.
        weight: W.
        modulator: M, which may be W itself.
        left: L of shape (d_out, rank).
        right: R of shape (rank, d_in).
        scaling: s.
        include_base: Whether to add W.
    """
    (rows, cols), rank = out.shape, left.shape[1]
    left, right = _by_rows(left), _by_rows(right)
    grid = (triton.cdiv(cols, FILL["BLOCK_N"]), triton.cdiv(rows, FILL["BLOCK_M"]))
    same = modulator.data_ptr() == weight.data_ptr()
    sizes = (rows, cols, rank, left.stride(0), right.stride(0))
    with _on(out):
        _fill[grid](
            out, weight, modulator, left, right, float(scaling), *sizes,
            BASE=include_base, SAME=same, RANK=padded(rank), **FILL,
        )  # fmt: skip


def thin_products(
    full: Tensor,
    modulator: Tensor,
    left: Tensor,
    right: Tensor,
    rows: Tensor | None = None,
    cols: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``H R^T`` (m, rank) and ``L^T H`` (rank, n) in float32, for ``H = G o M``.

    Args:
        full: G of shape (m, n), contiguous.
        modulator: M of shape (m, n); with ``rows`` and ``cols``, the matrix of which M has these rows and columns.
        left: L of shape (m, rank).
        right: R of shape (rank, n).
        rows: Rows of the modulator that M has.
        cols: Columns of the modulator that M has.
    """
    (m, n), rank = full.shape, left.shape[1]
    left, right = _by_rows(left), _by_rows(right)
    sizes = dict(THIN, BLOCK_N=THIN["BLOCK_N"] * 32 // max(32, padded(rank)))  # the sums of a tile fit into registers
    grid = (triton.cdiv(n, sizes["BLOCK_N"]), triton.cdiv(m, sizes["BLOCK_M"] * sizes["STEPS"]))
    by_columns = full.new_empty((grid[0], m, rank), dtype=torch.float32)
    by_rows = full.new_empty((grid[1], rank, n), dtype=torch.float32)
    gather = rows is not None
    strides = (modulator.stride(0), left.stride(0), right.stride(0))
    with _on(full):
        _thin[grid](
            full, modulator, left, right, rows if gather else full, cols if gather else full, by_columns, by_rows,
            m, n, rank, *strides, GATHER=gather, RANK=padded(rank), **sizes,
        )  # fmt: skip
    return by_columns.sum(0), by_rows.sum(0)


def _by_rows(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def _on(tensor: Tensor) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device if tensor.is_cuda else -1)
