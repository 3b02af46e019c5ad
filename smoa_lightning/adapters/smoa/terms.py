"""The update of the SMoA family as a short sum of terms ``(L R) o M`` in original coordinates.

The terms of ``D = sum_k P_k[(B_k A_k) o M_k]`` for each partition:

* One subspace: L = B, R = A.
* Blocks: L = B_wide (d_out x r), R = A_wide (r x d_in). Column j of A_wide holds the factors of j's block in the rows
  of that block, and zeros elsewhere. B_wide is the same for rows. So L R has the block structure.
* A grid: as blocks, separately for each row of tiles (:class:`Grid`).
* spectral_energy: ``sum_k (B_k A_k) o W_k = (B_K A_K) o W + sum_{k<K} (B_k A_k - B_K A_K) o W_k``, because the last
  spectral part is W minus the others.

Formulas: arXiv 2601.07507, 2605.21147 and 2509.21637.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, product
from typing import NamedTuple

import torch
from torch import Tensor

from smoa_lightning.adapters.smoa.scratch import scratch_like


@dataclass(frozen=True)
class Grid:
    """The places of the factors of K x K tiles in the two matrices of one term.

    Row i of tiles is L_i R_i with L_i = (B_i1 ... B_iK), R_i = diag(A_i1, ..., A_iK). All rows together need the
    arithmetic of a product of rank R; a single product for all tiles would have rank K R. The L_i are stacked in
    L (d_out x R), the R_i in (K R x d_in). R is the same for all rows of tiles.

    Attributes:
        shapes: (m, n) of every tile, one row of tiles after another.
        rows: Rows of the update in each row of tiles.
    """

    shapes: tuple[tuple[int, int], ...]
    rows: tuple[slice, ...]

    @classmethod
    def of(cls, row_sizes: list[int], col_sizes: list[int], ranks: tuple[int, ...]) -> tuple[Grid, Tensor, Tensor]:
        """Return a grid with these row sizes, column sizes and ranks, and the two indices of its :class:`Plan`."""
        count, d_in = len(col_sizes), sum(col_sizes)
        total = sum(ranks[:count])
        shapes = tuple(product(row_sizes, col_sizes))
        left, right = [], []
        for i, rows in enumerate(cls.rows_of(shapes)):
            first_rank = first_col = 0
            for n, rank in zip(col_sizes, ranks[i * count :], strict=False):
                ranks_here = torch.arange(first_rank, first_rank + rank)
                left.append(_positions(torch.arange(rows.start, rows.stop), ranks_here, total))
                right.append(_positions(i * total + ranks_here, torch.arange(first_col, first_col + n), d_in))
                first_rank, first_col = first_rank + rank, first_col + n
        return cls(shapes, cls.rows_of(shapes)), torch.cat(left), torch.cat(right)

    @staticmethod
    def rows_of(shapes: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
        """Return the rows of the update in each row of tiles, for the shapes of all K x K tiles.

        >>> Grid.rows_of(((3, 5), (3, 5), (2, 5), (2, 5)))
        (slice(0, 3, None), slice(3, 5, None))
        """
        ends = list(accumulate((m for m, _ in shapes[:: math.isqrt(len(shapes))]), initial=0))
        return tuple(map(slice, ends, ends[1:]))


def block_indices(rows: tuple[Tensor, ...], cols: tuple[Tensor, ...], ranks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the two indices of a :class:`Plan` of blocks with these rows, columns and ranks.

    They have an entry for each row and column if all blocks have the same shape and rank, else one for each parameter.
    """
    count = len(ranks)
    if len({*ranks}) == len({own.numel() for own in rows}) == len({own.numel() for own in cols}) == 1:
        return torch.cat([own * count + block for block, own in enumerate(rows)]), torch.stack(cols)
    parts = torch.arange(sum(ranks), device=rows[0].device).split(ranks)
    left = [_positions(own, part, sum(ranks)) for own, part in zip(rows, parts, strict=True)]
    d_in = sum(own.numel() for own in cols)
    right = [_positions(part, own, d_in) for own, part in zip(cols, parts, strict=True)]
    return torch.cat(left), torch.cat(right)


def _positions(rows: Tensor, cols: Tensor, width: int) -> Tensor:
    """Return the flat positions of some rows and columns of a matrix of a given width."""
    return (rows.unsqueeze(1) * width + cols).flatten()


@dataclass(frozen=True)
class Plan:
    """How A and B of one layer form its update.

    Attributes:
        ranks: r_k of every subspace.
        weighted: Whether the (last) product is multiplied with the frozen weight.
        rows: Output coordinates of every block (int64, ascending); empty unless the partition has blocks.
        cols: Input coordinates of every block.
        left_index: Where B is in L, for blocks and grids, as :func:`widen` takes it. All other entries of L are 0.
        right_index: Where A is in R (for a grid, in the matrix of the R_i).
        masks: Spectral parts W_1 .. W_{K-1} (d_out x d_in); empty unless spectral_energy with modulation by weight.
        noise: Fixed multipliers, each d_out x d_in: none, one for all subspaces, or one for each subspace.
        grid: Shapes of a grid's tiles; None for other partitions.
    """

    ranks: tuple[int, ...]
    weighted: bool
    rows: tuple[Tensor, ...] = ()
    cols: tuple[Tensor, ...] = ()
    left_index: Tensor | None = None
    right_index: Tensor | None = None
    masks: tuple[Tensor, ...] = ()
    noise: tuple[Tensor, ...] = ()
    grid: Grid | None = None


class Term(NamedTuple):
    """One summand ``(left @ right) o modulator`` of the update; a modulator of None is all ones.

    The term of a grid has the ``rows`` of every row of tiles; left and right are multiplied separately for each.
    """

    left: Tensor
    right: Tensor
    modulator: Tensor | None
    rows: tuple[slice, ...] = ()

    def parts(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield the products of the term: their rows, left and right factors."""
        if not self.rows:
            yield slice(None), self.left, self.right
            return
        for rows, right in zip(self.rows, self.right.chunk(len(self.rows)), strict=True):
            yield rows, self.left[rows], right


# ---------------------------------------------------------------------------------------------------- factors and terms


def split_factors(A: Tensor, B: Tensor, plan: Plan) -> list[tuple[Tensor, Tensor]]:
    """View the stored parameters as the factors ``(A_k, B_k)`` of every subspace: (r_k, n_k) and (m_k, r_k).

    Blocks are stored one after another, as a matrix if all have the same shape, else flat. Full-size factors are
    stored side by side, A as (sum r_k, d_in) and B as (d_out, sum r_k).
    """
    if plan.grid:
        shapes = list(plan.grid.shapes)
    elif plan.rows:
        shapes = [(rows.numel(), cols.numel()) for rows, cols in zip(plan.rows, plan.cols, strict=True)]
    else:
        return list(zip(A.split(plan.ranks, 0), B.split(plan.ranks, 1), strict=True))
    a_shapes = [(rank, n) for rank, (_, n) in zip(plan.ranks, shapes, strict=True)]
    b_shapes = [(m, rank) for rank, (m, _) in zip(plan.ranks, shapes, strict=True)]
    return list(zip(_unpack(A, a_shapes), _unpack(B, b_shapes), strict=True))


def _unpack(packed: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    if len(set(shapes)) == 1:
        return list(packed.view(len(shapes), *shapes[0]).unbind())
    parts = packed.reshape(-1).split([rows * cols for rows, cols in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def update_terms(A: Tensor, B: Tensor, weight: Tensor, plan: Plan, dtype: torch.dtype) -> list[Term]:
    """Write the update ``D`` as a sum of terms in original coordinates (see the module's docstring)."""
    noise: list[Tensor | None] = [matrix.to(dtype) for matrix in plan.noise]
    modulator = weight if plan.weighted else noise[0] if noise else None
    if plan.left_index is not None and plan.right_index is not None:
        tiles = plan.grid.rows if plan.grid else ()
        rank = B.numel() // weight.shape[0] if tiles else sum(plan.ranks)  # of every row of tiles
        left = widen(B.to(dtype), plan.left_index, (weight.shape[0], rank))
        right = widen(A.to(dtype), plan.right_index, (rank * max(1, len(tiles)), weight.shape[1]))
        return [Term(left, right, modulator, tiles)]
    if not plan.masks and len(noise) <= 1:
        return [Term(B.to(dtype), A.to(dtype), modulator)]
    factors = split_factors(A.to(dtype), B.to(dtype), plan)
    if plan.masks:
        (last_a, last_b), others = factors[-1], factors[:-1]
        terms = [Term(last_b, last_a, weight)]
        for (a, b), mask in zip(others, plan.masks, strict=True):
            terms.append(Term(torch.cat([b, -last_b], 1), torch.cat([a, last_a]), mask.to(dtype)))
        return terms
    return [Term(b, a, matrix) for (a, b), matrix in zip(factors, noise, strict=True)]


def widen(values: Tensor, index: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a matrix of a shape with the values at some places, and zeros elsewhere.

    Args:
        values: Factors of all blocks, as stored.
        index: The places. With two dimensions, the columns of each block, whose rows are next to each other. With one,
            flat positions of equal pieces of the values.
        shape: Shape of the result.
    """
    out = values.new_zeros(shape)
    if index.ndim == 2:
        at = _columns(index, shape[0])
        out.view(len(index), -1, shape[1]).scatter_(2, at, values.reshape(at.shape))
    else:
        out.view(-1, values.numel() // len(index)).index_copy_(0, index, values.reshape(len(index), -1))
    return out


def narrow(wide: Tensor, index: Tensor, size: int) -> Tensor:
    """Return the values that :func:`widen` placed, ``size`` of them, in the order in which they are stored."""
    if index.ndim == 2:
        return wide.reshape(len(index), -1, wide.shape[1]).gather(2, _columns(index, wide.shape[0]))
    return wide.reshape(-1, size // len(index)).index_select(0, index)


def _columns(index: Tensor, rows: int) -> Tensor:
    return index.unsqueeze(1).expand(-1, rows // len(index), -1)


def fill_update(out: Tensor, weight: Tensor, terms: list[Term], scaling: float, include_base: bool) -> Tensor:
    """Write ``W + s sum (L R) o M`` (or ``s sum (L R) o M``) into ``out``, which must not be the weight itself."""
    first, *rest = terms
    for rows, left, right in first.parts():
        if first.modulator is not None:
            torch.mm(left, right, out=out[rows])
        elif include_base:
            torch.addmm(weight[rows], left, right, alpha=scaling, out=out[rows])
        else:
            torch.addmm(out[rows], left, right, beta=0, alpha=scaling, out=out[rows])
    if first.modulator is not None:
        if include_base:
            torch.addcmul(weight, first.modulator, out, value=scaling, out=out)
        else:
            out.mul_(first.modulator)
            if scaling != 1:
                out.mul_(scaling)
    for term in rest:
        assert term.modulator is not None  # only modulated products are separate terms
        product_ = torch.mm(term.left, term.right, out=scratch_like(out, out.dtype, slot=1))
        out.addcmul_(product_, term.modulator, value=scaling)
    return out
