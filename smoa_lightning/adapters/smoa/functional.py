"""The fused linear map of the SMoA family: ``y = x (W + s D)^T + b`` in one GEMM, without a saved dense matrix.

``D = sum_k P_k[(B_k A_k) o M_k]`` is computed in forward and again in backward, in a scratch buffer that all layers
share. It is a short sum of terms (L R) o M (:mod:`smoa_lightning.adapters.smoa.terms`).

The arithmetic of forward and backward is in :mod:`smoa_lightning.adapters.smoa.fused`. Formulas: arXiv 2601.07507 and
2605.21147.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smoa_lightning.adapters.smoa.compiled import compiled_linear
from smoa_lightning.adapters.smoa.fused import Settings, gradients, output
from smoa_lightning.adapters.smoa.terms import Plan, fill_update, update_terms
from smoa_lightning.adapters.tuner.differentiation import differentiable_once


class _FusedLinear(torch.autograd.Function):
    """See :func:`smoa_linear`; returns y with one dimension for all rows, since a view made here cannot be changed."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        B: Tensor,
        plan: Plan,
        settings: Settings,
        reload: Callable[[], Tensor] | None,
    ) -> Tensor:
        trains_factors = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        ctx.save_for_backward(x if trains_factors else None, weight if reload is None else None, A, B)
        ctx.plan, ctx.settings, ctx.reload, ctx.shape = plan, settings, reload, x.shape
        return output(x.reshape(-1, x.shape[-1]), weight, bias, A, B, plan, settings)

    @staticmethod
    @differentiable_once("SMoA")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Must come first: under gradient checkpointing this runs forward again, which uses the scratch buffers.
        x, weight, A, B = ctx.saved_tensors
        if ctx.reload is not None:
            weight = ctx.reload()
        flat = None if x is None else x.reshape(-1, x.shape[-1])
        needs = ctx.needs_input_grad
        grads = gradients(grad, flat, weight, A, B, ctx.plan, ctx.settings, (needs[0], needs[2], needs[3] or needs[4]))
        grad_x = None if grads[0] is None else grads[0].view(ctx.shape)
        return grad_x, None, *grads[1:], None, None, None


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
    settings = Settings(scaling, include_base, split)
    if torch.compiler.is_compiling() and reload is None:
        y = compiled_linear(x.reshape(-1, x.shape[-1]), weight, bias, A, B, plan, settings)
    else:
        y = _FusedLinear.apply(x, weight, bias, A, B, plan, settings, reload)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], y.shape[-1])


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
