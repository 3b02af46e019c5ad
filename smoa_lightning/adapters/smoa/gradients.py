"""Gradients of the factors A and B of the SMoA family, for g = dL/dy and the inputs x.

With G = g^T x and H = G o M of a term (L R) o M: dL = s H R^T, dR = s L^T H. Blocks need only a K-th part of G; its
columns are gathered if that costs less than the saved arithmetic. Else G is whole, and entries of dL and dR outside of
the blocks are left out. Formulas: arXiv 2601.07507 and 2605.21147.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from smoa_lightning.adapters.smoa.scratch import scratch_like
from smoa_lightning.adapters.smoa.terms import Plan, Term, narrow, split_factors

Pair = tuple[Tensor, Tensor]


def factor_gradients(
    grad: Tensor, x: Tensor, A: Tensor, B: Tensor, weight: Tensor, plan: Plan, terms: list[Term], scaling: float
) -> Pair:
    """Return dL/dA and dL/dB, in the dtype and shape of A and B.

    Args:
        grad: g of shape (T, d_out).
        x: Inputs of shape (T, d_in).
        A: Right factors, as stored.
        B: Left factors, as stored.
        weight: W of shape (d_out, d_in).
        plan: How A and B form the update.
        terms: The result of ``update_terms``.
        scaling: s.
    """
    if plan.grid:
        parts_A, parts_B = _collected([_grid_pair(grad, x, terms[0], weight)], A, B, plan)
    elif plan.rows and gather_pays(x.device.type, x.dtype, torch.get_num_threads()):
        parts_A, parts_B = _gathered_parts(grad, x, split_factors(A, B, plan), weight, plan)
    else:
        parts_A, parts_B = _collected(_dense_pairs(grad, x, terms, weight), A, B, plan)
    side_by_side = not plan.grid and not plan.rows
    grad_A = _packed(parts_A, A, 0 if side_by_side else None, scaling)
    return grad_A, _packed(parts_B, B, 1 if side_by_side else None, scaling)


def _packed(parts: Sequence[Tensor], like: Tensor, dim: int | None, scaling: float) -> Tensor:
    """Join the gradients of all subspaces as their factors are stored: along ``dim``, or one after another."""
    if dim is not None:
        whole = torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]
    else:
        whole = torch.cat([part.reshape(-1) for part in parts]).view_as(like)
    whole = whole.to(like.dtype)
    return whole if scaling == 1 else whole * scaling


@functools.cache
def gather_pays(device_type: str, dtype: torch.dtype, threads: int) -> bool:
    """Whether K small products of gathered columns are faster than one full product.

    On a CPU torch gathers columns with one thread, and slowly in 16 bits. There the full product, with its blocks
    selected afterwards, is faster, unless one thread multiplies float32 (or wider) numbers. On a GPU in 16 bits the
    gathers take as long as the saved arithmetic, and need many more kernels.
    """
    return dtype not in (torch.bfloat16, torch.float16) and (device_type != "cpu" or threads == 1)


def _pair(h: Tensor, left: Tensor, right: Tensor) -> Pair:
    """``(h R^T, L^T h)``."""
    return h @ right.t(), left.t() @ h


def _gathered_parts(
    grad: Tensor, x: Tensor, factors: list[Pair], weight: Tensor, plan: Plan
) -> tuple[list[Tensor], list[Tensor]]:
    """For blocks: G_k = g[:, rows_k]^T x[:, cols_k], a K-th of the full product."""
    modulator = weight if plan.weighted else plan.noise[0].to(x.dtype) if plan.noise else None
    parts_A, parts_B = [], []
    for (a, b), rows, cols in zip(factors, plan.rows, plan.cols, strict=True):
        h = grad.index_select(1, rows).t() @ x.index_select(1, cols)
        if modulator is not None:
            h.mul_(modulator.index_select(0, rows).index_select(1, cols))
        grad_b, grad_a = _pair(h, b.to(h.dtype), a.to(h.dtype))
        parts_A.append(grad_a)
        parts_B.append(grad_b)
    return parts_A, parts_B


def _dense_pairs(grad: Tensor, x: Tensor, terms: list[Term], weight: Tensor) -> list[Pair]:
    """One full G = g^T x in scratch memory, then H = G o M for every term; zeros cancel entries outside the blocks."""
    full = torch.mm(grad.t(), x, out=scratch_like(weight, x.dtype, slot=0))
    pairs = []
    for index, term in enumerate(terms):
        h = full
        if term.modulator is not None:
            out = full if index == len(terms) - 1 else scratch_like(weight, x.dtype, slot=1)
            h = torch.mul(full, term.modulator, out=out)
        pairs.append(_pair(h, term.left, term.right))
    return pairs


def _grid_pair(grad: Tensor, x: Tensor, term: Term, weight: Tensor) -> Pair:
    """Return the gradients of the term's left and right matrices for a grid, one row of tiles after another."""
    h = torch.mm(grad.t(), x, out=scratch_like(weight, x.dtype, slot=0))
    if term.modulator is not None:
        h.mul_(term.modulator)
    pairs = [_pair(h[rows], left, right) for rows, left, right in term.parts()]
    lefts, rights = zip(*pairs, strict=True)
    return torch.cat(lefts), torch.cat(rights)


def _collected(pairs: list[Pair], A: Tensor, B: Tensor, plan: Plan) -> tuple[list[Tensor], list[Tensor]]:
    """Map gradients of the terms' factors to A_k and B_k: the transpose of ``update_terms``."""
    lefts, rights = [left for left, _ in pairs], [right for _, right in pairs]
    if plan.masks:
        # Term 0 is the last subspace; every other term is one subspace minus the last subspace.
        own = [(left[:, :rank], right[:rank]) for (left, right), rank in zip(pairs[1:], plan.ranks, strict=False)]
        last_B = lefts[0] - sum(left[:, rank:] for left, rank in zip(lefts[1:], plan.ranks, strict=False))
        last_A = rights[0] + sum(right[rank:] for right, rank in zip(rights[1:], plan.ranks, strict=False))
        return [*(a for _, a in own), last_A], [*(b for b, _ in own), last_B]
    if plan.left_index is None or plan.right_index is None:
        return rights, lefts
    return [narrow(rights[0], plan.right_index, A.numel())], [narrow(lefts[0], plan.left_index, B.numel())]
