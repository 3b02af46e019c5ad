"""The two halves of the fused linear map as plain functions, which autograd and compiled graphs share.

``y = x (W + s D)^T + b``; its gradient is ``dx = g (W + s D)``, and those of A and B are in
:mod:`smoa_lightning.adapters.smoa.gradients`. The matrix ``W + s D`` is formed in scratch memory in both halves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from smoa_lightning.adapters.smoa.gradients import factor_gradients
from smoa_lightning.adapters.smoa.scratch import scratch_like
from smoa_lightning.adapters.smoa.terms import Plan, fill_update, update_terms
from smoa_lightning.adapters.tuner.autocast import without_autocast


class Settings(NamedTuple):
    """How the update D and W form y.

    Attributes:
        scaling: s.
        include_base: False leaves out W.
        split: Multiply with W and with D separately.
    """

    scaling: float
    include_base: bool
    split: bool


def output(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, plan: Plan, settings: Settings
) -> Tensor:
    """Return y of shape (T, d_out) for x of shape (T, d_in); see :func:`smoa_linear`. Knows nothing of gradients."""
    scaling, include_base, split = settings
    with without_autocast(x.device.type):
        base = weight.to(x.dtype)  # a copy only under autocast
        terms = update_terms(A, B, base, plan, x.dtype)
        bias = None if bias is None else bias.to(x.dtype)
        out = scratch_like(weight, x.dtype, slot=0)
        matrix = fill_update(out, base, terms, scaling, include_base and not split)
        if not (include_base and split):
            return F.linear(x, matrix, bias)
        return F.linear(x, base, bias).addmm_(x, matrix.t())


def gradients(
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    A: Tensor,
    B: Tensor,
    plan: Plan,
    settings: Settings,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, of the bias, of A and of B, for g of shape (T, d_out) and x of shape (T, d_in).

    Args:
        grad: g.
        x: Inputs; needed for the gradients of A and B only.
        weight: W.
        A: Right factors, as stored.
        B: Left factors, as stored.
        plan: How A and B form the update D.
        settings: As in the forward.
        needs: Whether the gradients of x, of the bias, and of A and B are needed.
    """
    scaling, include_base, split = settings
    grad_x = grad_bias = grad_A = grad_B = None
    with without_autocast(grad.device.type):
        base = weight.to(grad.dtype)
        terms = update_terms(A, B, base, plan, grad.dtype)
        if needs[2]:
            assert x is not None
            grad_A, grad_B = factor_gradients(grad, x, A, B, base, plan, terms, scaling)
        if needs[0]:
            merged = include_base and not split
            matrix = fill_update(scratch_like(weight, grad.dtype, slot=0), base, terms, scaling, merged)
            grad_x = (grad @ base).addmm_(grad, matrix) if include_base and split else grad @ matrix
        if needs[1]:
            grad_bias = grad.sum(0)
    return grad_x, grad_bias, grad_A, grad_B
