"""Gradients that cannot be differentiated again, and that say so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smoa_lightning.common.errors import UserError

Backward = Callable[..., tuple[Tensor | None, ...]]


def differentiable_once(method: str) -> Callable[[Backward], Backward]:
    """Decorate the backward of an autograd function: with ``create_graph``, a second backward raises a UserError.

    torch's ``once_differentiable`` omits the graph if only the inputs of the function require gradients. A gradient
    penalty would then train without this layer's part, and without a message.

    Args:
        method: Name of the method in the message.
    """

    def decorate(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def once(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
            with torch.no_grad():
                results = backward(ctx, *grads)
            if torch.compiler.is_compiling() or not torch.is_grad_enabled():  # torch refuses it for a compiled graph
                return results
            present = [index for index, result in enumerate(results) if result is not None]
            marked: Any = _Refusal.apply(method, *(results[i].requires_grad_() for i in present))  # type: ignore
            refused = list(results)
            for index, result in zip(present, marked, strict=True):
                refused[index] = result
            return tuple(refused)

        return once

    return decorate


class _Refusal(torch.autograd.Function):
    """The identity, whose backward raises a UserError."""

    @staticmethod
    def forward(ctx: Any, method: str, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.method = method
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise UserError(
            f"a second derivative through a {ctx.method} layer is not supported: do not differentiate its gradients "
            "(create_graph=True), or use a method without an own gradient, such as MoRA or peft's LoRA."
        )
