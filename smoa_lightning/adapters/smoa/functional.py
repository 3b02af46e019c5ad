"""The fused linear map of the SMoA family: ``y = x (W + s D)^T + b`` in one GEMM, without a saved dense matrix.

``D = sum_k P_k[(B_k A_k) o M_k]`` is computed in forward and again in backward, in a scratch buffer that all layers
share. It is a short sum of terms (L R) o M (:mod:`smoa_lightning.adapters.smoa.terms`).

Backward: dx = g (W + s D), and the gradients of A and B (:mod:`smoa_lightning.adapters.smoa.gradients`). Formulas:
arXiv 2601.07507 and 2605.21147.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from smoa_lightning.adapters.smoa.gradients import factor_gradients
from smoa_lightning.adapters.smoa.scratch import scratch_like
from smoa_lightning.adapters.smoa.terms import Plan, fill_update, update_terms


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
        split: bool,
        reload: Callable[[], Tensor] | None,
    ) -> Tensor:
        trains_factors = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        ctx.save_for_backward(x if trains_factors else None, weight if reload is None else None, A, B)
        ctx.plan, ctx.scaling, ctx.include_base, ctx.split, ctx.reload = plan, scaling, include_base, split, reload
        with _without_autocast(x.device.type):
            base = weight.to(x.dtype)  # a copy only under autocast
            terms = update_terms(A, B, base, plan, x.dtype)
            bias = None if bias is None else bias.to(x.dtype)
            out = scratch_like(weight, x.dtype, slot=0)
            matrix = fill_update(out, base, terms, scaling, include_base and not split)
            if not (include_base and split):
                return F.linear(x, matrix, bias)
            result = F.linear(x, base, bias)
            result.view(-1, result.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), matrix.t())
            return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Must come first: under gradient checkpointing this runs forward again, which uses the scratch buffers.
        x, weight, A, B = ctx.saved_tensors
        if ctx.reload is not None:
            weight = ctx.reload()
        plan, scaling = ctx.plan, ctx.scaling
        grad_x = grad_bias = grad_A = grad_B = None
        flat = grad.reshape(-1, grad.shape[-1])
        with _without_autocast(grad.device.type):
            base = weight.to(grad.dtype)
            terms = update_terms(A, B, base, plan, grad.dtype)
            if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
                inputs = x.reshape(-1, x.shape[-1])
                grad_A, grad_B = factor_gradients(flat, inputs, A, B, base, plan, terms, scaling)
            if ctx.needs_input_grad[0]:
                merged = ctx.include_base and not ctx.split
                matrix = fill_update(scratch_like(weight, grad.dtype, slot=0), base, terms, scaling, merged)
                total = (flat @ base).addmm_(flat, matrix) if ctx.include_base and ctx.split else flat @ matrix
                grad_x = total.view(*grad.shape[:-1], weight.shape[1])
            if ctx.needs_input_grad[2]:
                grad_bias = flat.sum(0)
        return grad_x, None, grad_bias, grad_A, grad_B, None, None, None, None, None


def _without_autocast(device_type: str) -> Any:
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


def smoa_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    plan: Plan,
    scaling: float = 1.0,
    include_base: bool = True,
    split: bool = False,
    reload: Callable[[], Tensor] | None = None,
) -> Tensor:
    r"""Apply ``y = x (W + s D)^T + b`` with one GEMM. Only x, A and B are saved, and W by reference.

    Args:
        x: Inputs of shape (..., d_in), in the dtype of the computation.
        weight: Frozen W of shape (d_out, d_in), or a transposed view (Conv1D).
        bias: b of shape (d_out,), or None.
        A: Right factors, as stored (see :func:`split_factors`).
        B: Left factors, as stored.
        plan: How A and B form the update D.
        scaling: s.
        include_base: False leaves out W, ``y = s x D^T + b``, for inputs after dropout.
        split: Use two products, ``y = x W^T + b + x (s D)^T``. In 16 bits this loses as little as peft's HiRA for
            updates of at least about 1e-3 of W. Smaller updates are lost, since x W^T is rounded before the sum.
        reload: Dequantises W again in backward, since a saved W would need the memory that quantisation saves.

    Returns:
        y of shape (..., d_out), in the dtype of x.
    """
    values = (x, weight, bias, A, B, plan, scaling, include_base, split, reload)
    y: Tensor = _FusedLinear.apply(*values)  # type: ignore[no-untyped-call]
    return y


def delta_weight(A: Tensor, B: Tensor, weight: Tensor, plan: Plan, scaling: float, dtype: torch.dtype) -> Tensor:
    """Return the scaled update ``s D`` as a new matrix of shape (d_out, d_in) in ``dtype``, without gradient."""
    with torch.no_grad():
        base = weight.to(dtype)
        terms = update_terms(A, B, base, plan, dtype)
        return fill_update(torch.empty(weight.shape, dtype=dtype, device=weight.device), base, terms, scaling, False)


def merged_weight(A: Tensor, B: Tensor, weight: Tensor, plan: Plan, scaling: float) -> Tensor:
    """Return ``W + s D`` as a new matrix in the dtype of W: bit for bit the matrix of :func:`smoa_linear`."""
    with torch.no_grad():
        terms = update_terms(A, B, weight, plan, weight.dtype)
        return fill_update(torch.empty_like(weight), weight, terms, scaling, True)
