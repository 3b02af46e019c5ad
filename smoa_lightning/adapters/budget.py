"""The size of a strategy that meets a budget of trainable parameters: its rank, block size, displacement rank, ..."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import nn

from smoa_lightning.adapters.attach import attach
from smoa_lightning.adapters.inspect import target_layers
from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.adapters.size_settings import OUT_OF_REACH, Knob, Shapes, knobs_of
from smoa_lightning.adapters.tuner import linear_shape
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.parameter_budget import number_of_parameters
from smoa_lightning.configuration.yaml_files import no_such_file, read_yaml

TOLERANCE = 0.01  # a budget is met by a number of parameters that differs from it by this share at most
TRIALS = 24  # how many values may be refused, or counted to correct an estimate; one or two counts do where it is exact


@dataclass(frozen=True)
class Budget:
    """How many parameters may be trained: a number, or as many as another strategy trains on the same backbone.

    Attributes:
        asked: What the user wrote.
        parameters: The number; None where another strategy gives it.
        like: That strategy; None stands for full fine-tuning.
    """

    asked: Any
    parameters: int | None = None
    like: PeftConfig | None = None

    @classmethod
    def parse(cls, value: Any, folder: Path | None = None) -> Budget:
        """Read a budget: ``300000``, ``"300k"``, ``"0.3M"`` or ``{"like": "experiments/adapters/lora.yaml"}``.

        Args:
            value: What the user wrote.
            folder: Where the path of ``like`` is looked for first (the folder of the file that names it), before the
                working directory.

        Raises:
            UserError: No number above 0, no such file, or a file without a strategy.

        >>> Budget.parse("0.3M").parameters
        300000
        """
        if isinstance(value, dict):
            if set(value) != {"like"} or not isinstance(value["like"], str):
                raise UserError(
                    f"model.budget is {value!r}; as a mapping it holds one key, 'like': a strategy's YAML file"
                )
            return cls(value, like=_strategy_of(like_file(value["like"], folder)))
        number = number_of_parameters(value)
        if number is None:
            raise UserError(
                f"model.budget is {value!r}; it takes a number of trainable parameters, such as 300000, 300k or 1.2M, "
                "or 'like: FILE'"
            )
        return cls(value, parameters=number)

    def target(self, skeleton: nn.Module) -> int:
        """Return the number of parameters that the budget means for a backbone."""
        return trainable_parameters(skeleton, self.like) if self.parameters is None else self.parameters


@dataclass(frozen=True)
class BudgetFit:
    """The strategy that comes nearest to a budget.

    Attributes:
        config: The strategy, with the sizes found; None for full fine-tuning and for the frozen backbone.
        changes: The fields that differ from the strategy as configured, with their new values.
        parameters: What it trains.
        target: The budget.
        before: Values of the changed fields as configured.
    """

    config: PeftConfig | None
    parameters: int
    target: int
    changes: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def relative_error(self) -> float:
        """(parameters - target) / target."""
        return self.parameters / self.target - 1

    @property
    def within(self) -> bool:
        """Whether the budget is met within 1 %."""
        return abs(self.relative_error) <= TOLERANCE

    def facts(self, budget: Budget) -> dict[str, Any]:
        """Return what a record should tell."""
        numbers = {"target": self.target, "parameters": self.parameters, "relative_error": self.relative_error}
        return {"asked": budget.asked, **numbers, "within": self.within, "changes": self.changes}

    def line(self) -> str:
        """Say in one line what was chosen and how near it is."""
        found = f"{self.parameters:,} trainable parameters ({self.relative_error:+.1%})"
        sizes = ", ".join(f"{name} {value} (was {self.before[name]})" for name, value in self.changes.items())
        if self.config is None or not knobs_of(self.config):
            what = "this strategy" if self.config is None else method_name(self.config)
            return f"budget {self.target:,}: {what} has no size to choose and has {found}"
        sizes = sizes or "the strategy as configured"
        if self.within:
            return f"budget {self.target:,}: {sizes}, {found}"
        return f"budget {self.target:,}: not met within {TOLERANCE:.0%}; nearest is {sizes}, {found}"


def fit_budget(skeleton: nn.Module, config: PeftConfig | None, budget: Budget, frozen: bool = False) -> BudgetFit:
    """Find the size of a strategy with which it trains as many parameters as a budget allows.

    Every count is exact: the strategy is attached to a copy of the skeleton. Integer settings in which counts grow are
    searched by interpolation and bisection between neighbours, others by a formula that is corrected by counts. A
    method with two settings has the second one tried where the first does not suffice, then the first one again, then
    the second one with the smallest value of the first. Sizes that the method refuses are passed over.

    Args:
        skeleton: The backbone, best on the meta device; it is not changed.
        config: The strategy; its other settings stay, and the scale alpha / r of its update is kept. None: full
            fine-tuning.
        budget: What may be trained.
        frozen: Without a strategy, whether nothing is trained at all.

    Returns:
        The nearest fit, whether or not it is within 1 %.

    Raises:
        UserError: The strategy does not fit the backbone at any size.
    """
    target = budget.target(skeleton)
    if config is None:
        return BudgetFit(None, 0 if frozen else trainable_parameters(skeleton, None), target)
    knobs = knobs_of(config)
    if not knobs:
        return BudgetFit(config, trainable_parameters(skeleton, config), target)
    shapes = target_shapes(skeleton, config)
    best = _Search(skeleton, config, knobs[0], shapes, target).run()
    for first, knob in ((False, 1), (False, 0), (True, 1)) if len(knobs) == 2 else ():
        if best.within:
            break
        start = _Search(skeleton, config, knobs[0], shapes, target).at(0) if first else best.config
        found = _Search(skeleton, start, knobs[knob], shapes, target).run()
        best = min(best, found, key=lambda fit: abs(fit.relative_error))
    assert best.config is not None
    names = [f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(best.config, f.name)]
    changes = {name: getattr(best.config, name) for name in names}
    return dataclasses.replace(best, changes=changes, before={name: getattr(config, name) for name in names})


def trainable_parameters(skeleton: nn.Module, config: PeftConfig | None) -> int:
    """Return how many parameters a strategy trains on a backbone; None: full fine-tuning.

    Args:
        skeleton: The backbone, best on the meta device; it is not changed.
        config: The strategy.

    Raises:
        UserError: The strategy does not fit the backbone.
    """
    if config is None:
        return sum(parameter.numel() for parameter in skeleton.parameters())
    config = _countable(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are shown when the strategy is attached for good
        try:
            with torch.device("meta"):  # adapters as large as a trial wants, without a byte of memory
                adapted = attach(copy.deepcopy(skeleton), config, 0)
        except (RuntimeError, NotImplementedError):  # a method that computes with its new tensors, as BOFT does
            adapted = attach(copy.deepcopy(skeleton), config, 0)
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def _countable(config: PeftConfig) -> PeftConfig:
    """Copy a config without initial values that need weights or a tokenizer; shapes do not depend on them."""
    changes: dict[str, Any] = {}
    if isinstance(getattr(config, "init_lora_weights", None), str):
        changes["init_lora_weights"] = True
    if hasattr(config, "prompt_tuning_init"):
        changes["prompt_tuning_init"] = "RANDOM"
    return dataclasses.replace(config, **changes)


def target_shapes(skeleton: nn.Module, config: PeftConfig) -> Shapes:
    """Return the shapes (d_out, d_in) of the layers that a strategy adapts, with how many there are of each.

    A module that is no linear layer counts as one from the hidden size to itself.
    """
    hidden = getattr(getattr(skeleton, "config", None), "hidden_size", 1)
    return Counter(linear_shape(module) or (hidden, hidden) for module in target_layers(skeleton, config).values())


class _Search:
    """The search along one knob, from a config onwards."""

    def __init__(self, skeleton: nn.Module, config: Any, knob: Knob, shapes: Shapes, target: int) -> None:
        self.skeleton, self.config, self.knob, self.shapes, self.target = skeleton, config, knob, shapes, target
        self.values: Sequence[int | None] = knob.candidates(config, shapes)
        self.counts: dict[int, float] = {}  # by index; infinite where the method refuses the value
        self.refusal: Exception | None = None

    def run(self) -> BudgetFit:
        """Return the nearest candidate, the config itself if there is none."""
        if not self.values:
            return BudgetFit(self.config, trainable_parameters(self.skeleton, self.config), self.target)
        if self.knob.estimate is not None:
            self._by_estimate(self.knob.estimate)
        else:
            first = next((i for i in range(min(TRIALS, len(self.values))) if self._count(i) < math.inf), 0)
            between(lambda index: self._count(first + index), len(self.values) - first, self.target)
        accepted = {index: int(count) for index, count in self.counts.items() if count < math.inf}
        if not accepted:
            raise UserError(f"model.budget: {self.refusal}") from self.refusal
        index = min(accepted, key=lambda i: (abs(accepted[i] - self.target), accepted[i]))
        return BudgetFit(self.at(index), accepted[index], self.target)

    def at(self, index: int) -> Any:
        """Return the config with the candidate of an index."""
        value = self.values[index]
        if value == getattr(self.config, self.knob.field):
            return self.config
        return dataclasses.replace(self.config, **{self.knob.field: value, **self.knob.dependents(self.config, value)})

    def _count(self, index: int) -> float:
        if index not in self.counts:
            try:
                self.counts[index] = trainable_parameters(self.skeleton, self.at(index))
            except (UserError, ValueError) as error:
                self.counts[index], self.refusal = math.inf, error
        return self.counts[index]

    def _by_estimate(self, estimate: Callable[[Any, Any, Shapes], int]) -> None:
        """Count what the estimate calls nearest; move the estimate to what was counted; until it names it again."""
        guesses = [estimate(self.config, value, self.shapes) for value in self.values]
        offset = 0
        for _ in range(TRIALS):
            index = min(range(len(guesses)), key=lambda i: abs(guesses[i] + offset - self.target))
            if index in self.counts:
                return
            if self._count(index) < math.inf:
                offset = int(self.counts[index]) - guesses[index]
            else:
                guesses[index] = OUT_OF_REACH


def between(count: Callable[[int], float], size: int, target: float) -> None:
    """Evaluate a count that never falls until two neighbouring indices hold the target between them.

    Small indices are tried first, since a trial costs the more, the more parameters it has. Where the count is linear,
    four evaluations are enough; otherwise their number grows with the logarithm of the index.

    Args:
        count: Count at an index from 0 to ``size - 1``, infinite from the first refused one on.
        size: Number of indices.
        target: The value to be enclosed.
    """
    low, high = 0, min(1, size - 1)
    if count(low) >= target or high == low:
        return
    while count(high) < target:
        if high == size - 1:
            return
        slope = (count(high) - count(low)) / (high - low)
        ahead = math.ceil((target - count(high)) / slope) if slope > 0 else 2 * high
        low, high = high, min(high + max(1, ahead), size - 1)
    bisect = False
    while high - low > 1:
        middle = (low + high) // 2
        if not bisect and count(high) < math.inf:
            share = (target - count(low)) / (count(high) - count(low))
            middle = min(max(low + int(share * (high - low)), low + 1), high - 1)
        low, high = (middle, high) if count(middle) < target else (low, middle)
        bisect = not bisect


def like_file(path: str, folder: Path | None) -> Path:
    """Return the file of ``like``, named relative to the folder of the file that names it, or to the working directory.

    Raises:
        UserError: It is in neither.
    """
    places = [place / path for place in (folder, Path()) if place is not None]
    for file in places:
        if file.is_file():
            return file.resolve()
    raise no_such_file(path, places, "model.budget.like")


def _strategy_of(file: Path) -> PeftConfig | None:
    """Return the strategy that a YAML file names under ``model.adapter``."""
    content = read_yaml(file, "model.budget.like").value
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or "adapter" not in model or model.get("frozen"):
        raise UserError(f"model.budget.like: {str(file)!r} names no strategy that trains anything under model.adapter")
    adapter = model["adapter"]
    if adapter is None:
        return None
    class_path = adapter.get("class_path", "") if isinstance(adapter, dict) else str(adapter)
    package, _, name = class_path.rpartition(".")
    try:
        made = getattr(importlib.import_module(package or "peft"), name)(**(adapter.get("init_args") or {}))
    except (ImportError, AttributeError, TypeError, ValueError, UserError) as error:
        raise UserError(f"model.budget.like: {str(file)!r}: {class_path}: {' '.join(str(error).split())}") from error
    if not isinstance(made, PeftConfig):
        raise UserError(f"model.budget.like: {str(file)!r}: {class_path!r} is no peft.PeftConfig")
    return made
