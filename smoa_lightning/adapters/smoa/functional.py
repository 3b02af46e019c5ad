"""The fused linear map of the SMoA family: ``y = x (W + s D)^T + b`` in one GEMM, with nothing dense saved.

``D = sum_k P_k[(B_k A_k) o M_k]`` is rebuilt from A and B in forward and again in backward, each time in a scratch
buffer that all layers share. In original coordinates every partition is a short sum of *terms* ``(L R) o M``:

* one subspace: L = s B, R = A;
* blocks: L = s B_wide (d_out x r), R = A_wide (r x d_in), where A_wide holds in column j the factors of j's block in
  that block's own rows and zeros elsewhere, and B_wide alike; their product is the block structure itself;
* spectral_energy: ``sum_k (B_k A_k) o W_k = (B_K A_K) o W + sum_{k<K} (B_k A_k - B_K A_K) o W_k``, because the last
  spectral part is W minus the others.

Backward, with G = g^T x and H = G o M: dL = H R^T, dR = L^T H, dx = g (W + s D). Formulas:
arXiv 2601.07507 and 2605.21147.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from smoa_lightning.adapters.smoa.scratch import scratch_like


@dataclass(frozen=True)
class Plan:
    """How A and B of one layer make its update.

    Attributes:
        ranks: r_k of every subspace.
        weighted: Whether the (last) product is multiplied with the frozen weight itself.
        rows: Output coordinates of every block (int64, ascending); empty unless the partition is one of blocks.
        cols: Input coordinates of every block.
        masks: Spectral parts W_1 .. W_{K-1} (d_out x d_in); empty unless spectral_energy with modulation by weight.
        noise: Fixed multipliers, each d_out x d_in: none, one for all subspaces, or one for each.
    """

    ranks: tuple[int, ...]
    weighted: bool
    rows: tuple[Tensor, ...] = ()
    cols: tuple[Tensor, ...] = ()
    masks: tuple[Tensor, ...] = ()
    noise: tuple[Tensor, ...] = ()


class Term(NamedTuple):
    """One summand ``(left @ right) o modulator`` of the scaled update; a modulator of None is all ones."""

    left: Tensor
    right: Tensor
    modulator: Tensor | None


# ---------------------------------------------------------------------------------------------------- factors and terms


def split_factors(A: Tensor, B: Tensor, plan: Plan) -> list[tuple[Tensor, Tensor]]:
    """View the stored parameters as the factors ``(A_k, B_k)`` of every subspace: (r_k, n_k) and (m_k, r_k).

    Blocks are stored one after another (as a matrix where all have the same shape, else flat); full-size factors are
    stored side by side, A as (sum r_k, d_in) and B as (d_out, sum r_k).
    """
    if not plan.rows:
        return list(zip(A.split(plan.ranks, 0), B.split(plan.ranks, 1), strict=True))
    a_shapes = [(rank, cols.numel()) for rank, cols in zip(plan.ranks, plan.cols, strict=True)]
    b_shapes = [(rows.numel(), rank) for rank, rows in zip(plan.ranks, plan.rows, strict=True)]
    return list(zip(_unpack(A, a_shapes), _unpack(B, b_shapes), strict=True))


def _unpack(packed: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    parts = packed.reshape(-1).split([rows * cols for rows, cols in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def update_terms(A: Tensor, B: Tensor, weight: Tensor, plan: Plan, scaling: float, dtype: torch.dtype) -> list[Term]:
    """Write the scaled update ``s D`` as a sum of terms in original coordinates (see the module's docstring)."""
    factors = [(a, b * scaling) for a, b in split_factors(A, B, plan)]
    noise: list[Tensor | None] = [matrix.to(dtype) for matrix in plan.noise]
    if plan.rows:
        left, right = _widen(factors, weight.shape, plan)
        return [Term(left.to(dtype), right.to(dtype), weight if plan.weighted else noise[0] if noise else None)]
    if plan.masks:
        (last_a, last_b), others = factors[-1], factors[:-1]
        terms = [Term(last_b.to(dtype), last_a.to(dtype), weight)]
        for (a, b), mask in zip(others, plan.masks, strict=True):
            terms.append(Term(torch.cat([b, -last_b], 1).to(dtype), torch.cat([a, last_a]).to(dtype), mask.to(dtype)))
        return terms
    if len(noise) > 1:
        return [Term(b.to(dtype), a.to(dtype), matrix) for (a, b), matrix in zip(factors, noise, strict=True)]
    modulator = weight if plan.weighted else noise[0] if noise else None
    return [Term((B * scaling).to(dtype), A.to(dtype), modulator)]


def _widen(factors: list[tuple[Tensor, Tensor]], shape: torch.Size, plan: Plan) -> tuple[Tensor, Tensor]:
    first_a, first_b = factors[0]
    total = sum(plan.ranks)
    right = first_a.new_zeros(total, shape[1])
    left = first_b.new_zeros(shape[0], total)
    start = 0
    for (a, b), rows, cols in zip(factors, plan.rows, plan.cols, strict=True):
        stop = start + a.shape[0]
        right[start:stop].index_copy_(1, cols, a)
        left[:, start:stop].index_copy_(0, rows, b)
        start = stop
    return left, right


def fill_update(out: Tensor, weight: Tensor, terms: list[Term], include_base: bool) -> Tensor:
    """Write ``W + sum (L R) o M`` (or the sum alone) into ``out``, which must not be the weight itself."""
    first, *rest = terms
    if include_base and first.modulator is None:
        torch.addmm(weight, first.left, first.right, out=out)
    else:
        torch.mm(first.left, first.right, out=out)
        if first.modulator is not None:
            torch.addcmul(weight, first.modulator, out, out=out) if include_base else out.mul_(first.modulator)
    for term in rest:
        assert term.modulator is not None  # only modulated products are kept apart
        out.addcmul_(torch.mm(term.left, term.right, out=scratch_like(out, out.dtype, slot=1)), term.modulator)
    return out


# ---------------------------------------------------------------------------------------------------- gradients


def _factor_gradients(
    grad: Tensor, x: Tensor, A: Tensor, B: Tensor, weight: Tensor, plan: Plan, scaling: float
) -> tuple[Tensor, Tensor]:
    """dL/dA and dL/dB, in the dtype and shape of A and B.

    Args:
        grad: g of shape (T, d_out).
        x: Inputs of shape (T, d_in).
    """
    grad_A, grad_B = torch.empty_like(A), torch.empty_like(B)
    targets = split_factors(grad_A, grad_B, plan)
    if plan.rows and len(plan.rows) > 1 and _gather_pays(x.device.type, x.dtype):
        _gathered_gradients(targets, grad, x, split_factors(A, B, plan), weight, plan, scaling)
    else:
        terms = update_terms(A, B, weight, plan, scaling, x.dtype)
        _dense_gradients(targets, grad, x, terms, weight, plan, scaling)
    return grad_A, grad_B


@functools.cache
def _gather_pays(device_type: str, dtype: torch.dtype) -> bool:
    """Whether K small products of gathered columns beat one full product: not where GEMMs are very fast (AMX)."""
    if device_type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return not (probe is not None and probe())
    return True


def _gathered_gradients(
    targets: list[tuple[Tensor, Tensor]],
    grad: Tensor,
    x: Tensor,
    factors: list[tuple[Tensor, Tensor]],
    weight: Tensor,
    plan: Plan,
    scaling: float,
) -> None:
    """Blocks only: G_k = g[:, rows_k]^T x[:, cols_k], a K-th of the full product."""
    modulator = weight if plan.weighted else plan.noise[0].to(x.dtype) if plan.noise else None
    for (grad_a, grad_b), (a, b), rows, cols in zip(targets, factors, plan.rows, plan.cols, strict=True):
        h = grad.index_select(1, rows).t() @ x.index_select(1, cols)
        if modulator is not None:
            h.mul_(modulator.index_select(0, rows).index_select(1, cols))
        grad_b.copy_(h @ (a * scaling).to(h.dtype).t())
        grad_a.copy_((b * scaling).to(h.dtype).t() @ h)


def _dense_gradients(
    targets: list[tuple[Tensor, Tensor]],
    grad: Tensor,
    x: Tensor,
    terms: list[Term],
    weight: Tensor,
    plan: Plan,
    scaling: float,
) -> None:
    """One full G = g^T x in scratch memory, then H = G o M for every term; entries outside the blocks meet zeros."""
    full = torch.mm(grad.t(), x, out=scratch_like(weight, x.dtype, slot=0))
    gradients = []
    for index, term in enumerate(terms):
        h = full
        if term.modulator is not None:
            out = full if index == len(terms) - 1 else scratch_like(weight, x.dtype, slot=1)
            h = torch.mul(full, term.modulator, out=out)
        gradients.append((h @ term.right.t(), term.left.t() @ h))
    _collect(targets, gradients, plan, scaling)


def _collect(
    targets: list[tuple[Tensor, Tensor]], gradients: list[tuple[Tensor, Tensor]], plan: Plan, scaling: float
) -> None:
    """Carry gradients of the terms' factors back to A_k and B_k: the transpose of :func:`update_terms`."""
    if plan.masks:
        (last_a, last_b), (left, right) = targets[-1], gradients[0]
        total_a, total_b = right, left * scaling
        for (grad_a, grad_b), (left, right), rank in zip(targets[:-1], gradients[1:], plan.ranks[:-1], strict=True):
            grad_b.copy_(left[:, :rank] * scaling)
            grad_a.copy_(right[:rank])
            total_b = total_b - left[:, rank:] * scaling
            total_a = total_a + right[rank:]
        last_b.copy_(total_b)
        last_a.copy_(total_a)
        return
    if len(gradients) > 1:
        for (grad_a, grad_b), (left, right) in zip(targets, gradients, strict=True):
            grad_b.copy_(left * scaling)
            grad_a.copy_(right)
        return
    left, right = gradients[0]
    start = 0
    for index, (grad_a, grad_b) in enumerate(targets):
        stop = start + plan.ranks[index]
        own_left, own_right = left[:, start:stop], right[start:stop]
        if plan.rows:
            own_left = own_left.index_select(0, plan.rows[index])
            own_right = own_right.index_select(1, plan.cols[index])
        grad_b.copy_(own_left * scaling)
        grad_a.copy_(own_right)
        start = stop


# ---------------------------------------------------------------------------------------------------- the fused map


class _FusedLinear(torch.autograd.Function):
    """See :func:`smoa_linear`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        B: Tensor,
        plan: Plan,
        scaling: float,
        include_base: bool,
    ) -> Tensor:
        trains_factors = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        ctx.save_for_backward(x if trains_factors else None, weight, A, B)
        ctx.plan, ctx.scaling, ctx.include_base = plan, scaling, include_base
        with torch.autocast(x.device.type, enabled=False):
            base = weight.to(x.dtype)  # a copy only under autocast
            terms = update_terms(A, B, base, plan, scaling, x.dtype)
            effective = fill_update(scratch_like(weight, x.dtype, slot=0), base, terms, include_base)
            return F.linear(x, effective, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Read first of all: under gradient checkpointing this runs forward again, which uses the scratch buffers.
        x, weight, A, B = ctx.saved_tensors
        grad_x = grad_bias = grad_A = grad_B = None
        flat = grad.reshape(-1, grad.shape[-1])
        with torch.autocast(grad.device.type, enabled=False):
            base = weight.to(grad.dtype)
            if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
                inputs = x.reshape(-1, x.shape[-1])
                grad_A, grad_B = _factor_gradients(flat, inputs, A, B, base, ctx.plan, ctx.scaling)
            if ctx.needs_input_grad[0]:
                terms = update_terms(A, B, base, ctx.plan, ctx.scaling, grad.dtype)
                effective = fill_update(scratch_like(weight, grad.dtype, slot=0), base, terms, ctx.include_base)
                grad_x = (flat @ effective).view(*grad.shape[:-1], weight.shape[1])
            if ctx.needs_input_grad[2]:
                grad_bias = flat.sum(0)
        return grad_x, None, grad_bias, grad_A, grad_B, None, None, None


def smoa_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    plan: Plan,
    scaling: float = 1.0,
    include_base: bool = True,
) -> Tensor:
    r"""Apply ``y = x (W + s D)^T + b`` with one GEMM, saving only x, A and B (W is frozen and saved by reference).

    Args:
        x: Inputs of shape (..., d_in), in the dtype of the computation.
        weight: Frozen W of shape (d_out, d_in); a transposed view is fine (Conv1D).
        bias: b of shape (d_out,), or None.
        A: Right factors, as stored (see :func:`split_factors`).
        B: Left factors, as stored.
        plan: How A and B make the update D.
        scaling: s.
        include_base: False leaves out W, ``y = s x D^T + b``: for inputs that went through dropout.

    Returns:
        y of shape (..., d_out), in the dtype of x.
    """
    return _FusedLinear.apply(x, weight, bias, A, B, plan, scaling, include_base)


def delta_weight(A: Tensor, B: Tensor, weight: Tensor, plan: Plan, scaling: float, dtype: torch.dtype) -> Tensor:
    """The scaled update ``s D`` as a new matrix of shape (d_out, d_in) in ``dtype``; carries no gradient."""
    with torch.no_grad():
        base = weight.to(dtype)
        terms = update_terms(A, B, base, plan, scaling, dtype)
        return fill_update(torch.empty(weight.shape, dtype=dtype, device=weight.device), base, terms, False)


def merged_weight(A: Tensor, B: Tensor, weight: Tensor, plan: Plan, scaling: float) -> Tensor:
    """``W + s D`` as a new matrix in the dtype of W: bit for bit the one that :func:`smoa_linear` multiplies with."""
    with torch.no_grad():
        terms = update_terms(A, B, weight, plan, scaling, weight.dtype)
        return fill_update(torch.empty_like(weight), weight, terms, True)
