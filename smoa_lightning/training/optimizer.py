"""The optimizer of a run with its schedule, from its settings, for the parameters that the strategy trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from smoa_lightning.adapters.parameters import adapter_parameter_names, head_parameters
from smoa_lightning.common.errors import UserError, nearest, one_line
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


def with_groups(
    factory: Factory, network: nn.Module, rate: float | None, no_weight_decay: Sequence[str] | None
) -> Factory:
    """Return a factory that puts parameters with a rate or a weight decay of their own into groups.

    The schedule scales the rates of all groups alike; that of the first group is logged.

    Args:
        factory: Parameters -> their optimizer.
        network: The backbone with its adapter.
        rate: ``model.head_lr``, the rate of a new head; ``None`` is that of the optimizer.
        no_weight_decay: ``model.no_weight_decay``: parts of names of parameters without weight decay.

    Raises:
        UserError: There is a rate, but no new head; a part of a name is in no name.
    """
    head = {id(parameter) for parameter in head_parameters(network)}
    check_head_rate(rate, bool(head))
    words = no_weight_decay or ()
    check_words(network, words)
    free = {id(p) for name, p in network.named_parameters() if any(word in name for word in words)}
    if rate is None and not free:
        return factory

    def grouped(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups: dict[tuple[bool, bool], list[Any]] = {}
        for parameter in parameters:
            groups.setdefault((rate is not None and id(parameter) in head, id(parameter) in free), []).append(parameter)
        made: list[Any] = [
            {"params": members, **({"lr": rate} if own_rate else {}), **({"weight_decay": 0.0} if undecayed else {})}
            for (own_rate, undecayed), members in sorted(groups.items(), key=lambda item: item[0])
        ]
        return factory(made)

    return grouped


def check_words(network: nn.Module, words: Sequence[str]) -> None:
    """Refuse a word of ``model.no_weight_decay`` that is in no name of a parameter."""
    names = [name for name, _ in network.named_parameters()]
    for word in words:
        if not any(word in name for name in names):
            near = nearest(word, {part for name in names for part in name.split(".") if not part.isdecimal()}, 1)
            raise UserError(f"model.no_weight_decay: no parameter has {word!r} in its name; the nearest is {near}")


def check_weight_decay(optimizer: torch.optim.Optimizer, no_weight_decay: Sequence[str] | None) -> None:
    """Refuse ``model.no_weight_decay`` for an optimizer without a weight decay."""
    if no_weight_decay and "weight_decay" not in optimizer.defaults:
        raise UserError(
            f"model.no_weight_decay is set, but {type(optimizer).__name__} has no weight decay: remove it, or take an "
            "optimizer such as torch.optim.AdamW"
        )


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


def try_optimizer(factory: Factory, device: torch.device, no_weight_decay: Sequence[str] | None = None) -> None:
    """Do one step on a small tensor.

    Args:
        factory: Parameters -> their optimizer.
        device: The device of the run.
        no_weight_decay: ``model.no_weight_decay``.

    Raises:
        UserError: The optimizer refuses one of its settings, or cannot do this step.
    """
    weight = nn.Parameter(torch.zeros(2, 2, device=device))
    optimizer = make_optimizer(factory, [weight])
    check_weight_decay(optimizer, no_weight_decay)

    def closure() -> float:
        weight.grad = torch.ones_like(weight)
        return 1.0

    try:
        optimizer.step(closure)
    except Exception as error:  # errors of optimizers have no common class
        raise _refused(error, f"{type(optimizer).__name__} cannot do a step: ") from error


def _refused(error: Exception, reason: str = "") -> UserError:
    return UserError(f"model.optimizer: {reason}{one_line(error)}")
