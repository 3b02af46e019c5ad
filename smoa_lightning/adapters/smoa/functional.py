"""The fused linear map of the SMoA family: ``y = x (W + s D)^T + b`` in one GEMM, with nothing dense saved.

``D = sum_k P_k[(B_k A_k) o M_k]`` is rebuilt from A and B in forward and again in backward, each time in a scratch
buffer that all layers share, as a short sum of terms (L R) o M (:mod:`smoa_lightning.adapters.smoa.terms`).

Backward, with G = g^T x and H = G o M: dL = H R^T, dR = L^T H, dx = g (W + s D). Formulas:
arXiv 2601.07507 and 2605.21147.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from smoa_lightning.adapters.smoa.scratch import scratch_like
from smoa_lightning.adapters.smoa.terms import Plan, Term, fill_update, split_factors, update_terms

# ---------------------------------------------------------------------------------------------------- gradients


def _factor_gradients(
    grad: Tensor, x: Tensor, A: Tensor, B: Tensor, weight: Tensor, plan: Plan, scaling: float
) -> tuple[Tensor, Tensor]:
    """dL/dA and dL/dB, in the dtype and shape of A and B.

    Args:
        grad: g of shape (T, d_out).
        x: Inputs of shape (T, d_in).
    """
    if plan.grid:
        (term,) = update_terms(A, B, weight, plan, scaling, x.dtype)
        left, right = _grid_gradients(grad, x, term, weight)
        grad_A = right.flatten()[plan.grid.right_index].view_as(A)
        return grad_A.to(A.dtype), (left.flatten()[plan.grid.left_index].to(B.dtype) * scaling).view_as(B)
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


def _grid_gradients(grad: Tensor, x: Tensor, term: Term, weight: Tensor) -> tuple[Tensor, Tensor]:
    """As above for a grid, row by row of tiles: the gradients of the term's left and right matrices."""
    h = torch.mm(grad.t(), x, out=scratch_like(weight, x.dtype, slot=0))
    if term.modulator is not None:
        h.mul_(term.modulator)
    pairs = [(h[rows] @ right.t(), left.t() @ h[rows]) for rows, left, right in term.parts()]
    lefts, rights = zip(*pairs, strict=True)
    return torch.cat(lefts), torch.cat(rights)


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
        reload: Callable[[], Tensor] | None,
    ) -> Tensor:
        trains_factors = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        ctx.save_for_backward(x if trains_factors else None, weight if reload is None else None, A, B)
        ctx.plan, ctx.scaling, ctx.include_base, ctx.reload = plan, scaling, include_base, reload
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
        if ctx.reload is not None:
            weight = ctx.reload()
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
        return grad_x, None, grad_bias, grad_A, grad_B, None, None, None, None


def smoa_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    plan: Plan,
    scaling: float = 1.0,
    include_base: bool = True,
    reload: Callable[[], Tensor] | None = None,
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
        reload: Makes W once more in backward, where keeping it would undo that it is held in 8 or 4 bits.

    Returns:
        y of shape (..., d_out), in the dtype of x.
    """
    return _FusedLinear.apply(x, weight, bias, A, B, plan, scaling, include_base, reload)


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
