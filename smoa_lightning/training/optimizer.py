"""The optimizer of a run with its schedule, from its settings, for the parameters that the strategy trains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from smoa_lightning.adapters.parameters import adapter_parameter_names, head_parameters
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.training.schedule import Decay, warmup_decay

Factory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

DEFAULT_OPTIMIZER = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)


def scheduled_optimizer(
    network: nn.Module, factory: Factory, total: int, warmup: float, decay: Decay
) -> dict[str, Any]:
    """Make the optimizer of the trainable parameters, and its schedule by step, in the form that Lightning takes.

    Args:
        network: The backbone with its adapter.
        factory: Parameters -> their optimizer.
        total: Number of optimizer steps of the run.
        warmup: ``model.warmup``.
        decay: ``model.decay``.

    Raises:
        RuntimeError: The trainable parameters are not those of the adapter.
        UserError: The optimizer refuses one of its settings.
    """
    optimizer = make_optimizer(factory, _trained_parameters(network))
    scale = partial(warmup_decay, warmup=warmup, total=total, decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_head_rate(rate: float | None, has_head: bool) -> None:
    """Refuse ``model.head_lr`` for a task without a new head."""
    if rate is not None and not has_head:
        raise UserError(f"model.head_lr is {rate:g}, but the task has no new head: remove it")


def with_head_rate(factory: Factory, network: nn.Module, rate: float | None) -> Factory:
    """Return a factory that puts the parameters of a new head into a group with a learning rate of its own.

    The schedule scales the rates of both groups alike.

    Args:
        factory: Parameters -> their optimizer.
        network: The backbone with its adapter.
        rate: ``model.head_lr``; ``None`` changes nothing.

    Raises:
        UserError: There is a rate, but no new head.
    """
    if rate is None:
        return factory
    own = {id(parameter) for parameter in head_parameters(network)}
    check_head_rate(rate, bool(own))

    def grouped(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        rest = [parameter for parameter in parameters if id(parameter) not in own]
        groups: list[Any] = [{"params": rest}] if rest else []
        groups.append({"params": [p for p in parameters if id(p) in own], "lr": rate})
        return factory(groups)

    return grouped


def _trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if isinstance(network, PeftModel):
        expected = {id(network.get_parameter(n)): n for n in adapter_parameter_names(network)}
        trained = {id(parameter): name for name, parameter in trainable.items()}
        if trained.keys() != expected.keys():
            odd = sorted((trained | expected)[key] for key in trained.keys() ^ expected.keys())
            raise RuntimeError(f"trainable parameters differ from the adapter's: {', '.join(odd[:5])}")
    return list(trainable.values())


def make_optimizer(factory: Factory, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimizer of parameters.

    Raises:
        UserError: The optimizer refuses one of its settings.
    """
    try:
        return factory(parameters)
    except Exception as error:  # errors of optimizers have no common class
        raise _refused(error) from error


def try_optimizer(factory: Factory, device: torch.device) -> None:
    """Do one step on a small tensor.

    Args:
        factory: Parameters -> their optimizer.
        device: The device of the run.

    Raises:
        UserError: The optimizer refuses one of its settings, or cannot do this step.
    """
    weight = nn.Parameter(torch.zeros(2, 2, device=device))
    optimizer = make_optimizer(factory, [weight])

    def closure() -> float:
        weight.grad = torch.ones_like(weight)
        return 1.0

    try:
        optimizer.step(closure)
    except Exception as error:  # errors of optimizers have no common class
        raise _refused(error, f"{type(optimizer).__name__} cannot do a step: ") from error


def _refused(error: Exception, reason: str = "") -> UserError:
    return UserError(f"model.optimizer: {reason}{one_line(error)}")
