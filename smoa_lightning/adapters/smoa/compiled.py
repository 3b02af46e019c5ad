"""The fused linear map as an operator of torch, so that a compiled graph calls it as one node, forward and backward.

Inside the operator everything runs as without a compiler, with nothing dense saved. On a GPU it takes new memory, which
a CUDA graph owns, else shared scratch memory. A graph of the single products would save W + s D of every layer for
backward.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from smoa_lightning.adapters.smoa.fused import Settings, gradients, output
from smoa_lightning.adapters.smoa.scratch import memory_of_graph
from smoa_lightning.adapters.smoa.terms import Grid, Plan


def compiled_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, plan: Plan, settings: Settings
) -> Tensor:
    """Return y of shape (T, d_out) for x of shape (T, d_in), as ``fused.output``, with a gradient."""
    tensors, numbers = parts_of(plan)
    y: Tensor = _forward(x, weight, bias, A, B, tensors, numbers, *settings)
    return y


def parts_of(plan: Plan) -> tuple[list[Tensor], list[int]]:
    """Return the tensors and the numbers of a plan, since an operator takes no other values; see :func:`plan_of`."""
    tensors = [*plan.rows, *plan.cols, *plan.masks, *plan.noise]
    if plan.left_index is not None and plan.right_index is not None:
        tensors += [plan.left_index, plan.right_index]
    numbers = [int(plan.weighted), len(plan.rows), len(plan.masks), len(plan.noise), len(plan.ranks), *plan.ranks]
    if plan.grid is not None:
        for shape in plan.grid.shapes:
            numbers += shape
    return tensors, numbers


def plan_of(tensors: list[Tensor], numbers: list[int]) -> Plan:
    """Return the plan with these :func:`parts_of`."""
    weighted, blocks, masks, noise, count, *rest = numbers
    ranks, sizes = tuple(rest[:count]), rest[count:]
    parts = iter(tensors)
    rows, cols, spectral, random = (tuple(islice(parts, size)) for size in (blocks, blocks, masks, noise))
    left_index, right_index, grid = next(parts, None), next(parts, None), None
    if sizes:
        shapes = tuple(zip(sizes[::2], sizes[1::2], strict=True))
        grid = Grid(shapes, Grid.rows_of(shapes))
    return Plan(ranks, bool(weighted), rows, cols, left_index, right_index, spectral, random, grid)


@torch.library.custom_op("smoa_lightning::linear", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    tensors: list[Tensor],
    numbers: list[int],
    scaling: float,
    include_base: bool,
    split: bool,
) -> Tensor:
    with memory_of_graph(x.device):
        return output(x, weight, bias, A, B, plan_of(tensors, numbers), Settings(scaling, include_base, split))


@torch.library.custom_op("smoa_lightning::linear_gradients", mutates_args=())
def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    A: Tensor,
    B: Tensor,
    tensors: list[Tensor],
    numbers: list[int],
    scaling: float,
    include_base: bool,
    split: bool,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    settings, (for_x, for_bias, for_factors) = Settings(scaling, include_base, split), needs
    plan = plan_of(tensors, numbers)
    with memory_of_graph(grad.device):
        found = gradients(grad, x, weight, A, B, plan, settings, (for_x, for_bias, for_factors))
    first, second, third, fourth = (grad.new_empty(0) if value is None else value.contiguous() for value in found)
    return first, second, third, fourth


@_forward.register_fake
def _forward_shape(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@_backward.register_fake
def _backward_shapes(
    grad: Tensor, x: Tensor, weight: Tensor, A: Tensor, B: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    for_x, for_bias, for_factors = others[-1]
    return (
        grad.new_empty(x.shape if for_x else 0),
        grad.new_empty(weight.shape[0] if for_bias else 0),
        A.new_empty(A.shape) if for_factors else grad.new_empty(0),
        B.new_empty(B.shape) if for_factors else grad.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, A, B, tensors, *ctx.others = inputs
    ctx.save_for_backward(x, weight, A, B, *tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, A, B, *tensors = ctx.saved_tensors
    needs = [ctx.needs_input_grad[0], ctx.needs_input_grad[2], ctx.needs_input_grad[3] or ctx.needs_input_grad[4]]
    found = _backward(grad.contiguous(), x, weight, A, B, tensors, *ctx.others, needs)
    wanted = (needs[0], needs[1], needs[2], needs[2])
    grad_x, grad_bias, grad_A, grad_B = (g if want else None for g, want in zip(found, wanted, strict=True))
    return grad_x, None, grad_bias, grad_A, grad_B, [None] * len(tensors), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
