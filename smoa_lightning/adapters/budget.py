"""Choose the size of a strategy (rank, block size, displacement rank, ...) for a budget of trainable parameters."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import math
import warnings
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
from smoa_lightning.adapters.parameters import head_parameters
from smoa_lightning.adapters.size_patterns import pattern_note, rank_field, searched_settings
from smoa_lightning.adapters.size_settings import OUT_OF_REACH, Shapes, SizeSetting, size_settings_of
from smoa_lightning.adapters.target_parameters import target_parameter_shapes
from smoa_lightning.adapters.target_shapes import target_shapes
from smoa_lightning.backbones.heads import new_head
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.parameter_budget import number_of_parameters
from smoa_lightning.configuration.shipped_files import config_file
from smoa_lightning.configuration.yaml_files import read_yaml

TOLERANCE = 0.01  # largest relative difference at which a budget is met
TRIALS = 24  # most values to try before one is accepted, or to correct an estimate; an exact estimate needs 1 or 2


@dataclass(frozen=True)
class Budget:
    """A number of trainable parameters: a fixed number, or that of a reference strategy on the same backbone.

    Attributes:
        asked: The budget as the user wrote it.
        parameters: The number; None for the number of the reference strategy.
        like: The reference strategy; None means full fine-tuning.
    """

    asked: Any
    parameters: int | None = None
    like: PeftConfig | None = None

    @classmethod
    def parse(cls, value: Any, folder: Path | None = None) -> Budget:
        """Read a budget: ``300000``, ``"300k"``, ``"0.3M"`` or ``{"like": "experiments/adapters/lora.yaml"}``.

        Args:
            value: The budget as the user wrote it.
            folder: Folder of the file that names ``like``. The path is looked up there first, then in the working
                directory.

        Raises:
            UserError: The value is not a number above 0, the file is missing, or it has no strategy.

        >>> Budget.parse("0.3M").parameters
        300000
        """
        if isinstance(value, dict):
            if set(value) != {"like"} or not isinstance(value["like"], str):
                raise UserError(
                    f"model.budget is {value!r}, but a mapping must have one key, 'like', with a strategy's YAML file"
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
        """Return the number of parameters of the budget for a backbone."""
        return trainable_parameters(skeleton, self.like) if self.parameters is None else self.parameters


@dataclass(frozen=True)
class BudgetFit:
    """The strategy that comes nearest to a budget.

    Attributes:
        config: The strategy with the chosen sizes; None for full fine-tuning and for the frozen backbone.
        changes: Changed fields -> their new values.
        parameters: Number of its trainable parameters.
        target: Number of parameters of the budget.
        before: Changed fields -> their configured values.
        fixed: Whether no setting changes the number.
    """

    config: PeftConfig | None
    parameters: int
    target: int
    changes: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    fixed: bool = False

    @property
    def relative_error(self) -> float:
        """(parameters - target) / target."""
        return self.parameters / self.target - 1

    @property
    def within(self) -> bool:
        """Whether the budget is met within 1 %."""
        return abs(self.relative_error) <= TOLERANCE

    def facts(self, budget: Budget) -> dict[str, Any]:
        """Return the facts for the record of a run."""
        numbers = {"target": self.target, "parameters": self.parameters, "relative_error": self.relative_error}
        return {"asked": budget.asked, **numbers, "within": self.within, "changes": self.changes}

    def line(self) -> str:
        """Return one line with the chosen sizes and the difference from the budget."""
        count = f"{self.parameters:,} trainable parameters ({self.relative_error:+.1%})"
        sizes = ", ".join(f"{name} {value} (was {self.before[name]})" for name, value in self.changes.items())
        if self.fixed:
            name = "this strategy" if self.config is None else method_name(self.config)
            return f"budget {self.target:,}: {name} has a fixed size, with {count}"
        sizes = (sizes or "the strategy as configured") + pattern_note(self.config, self.changes)
        if self.within:
            return f"budget {self.target:,}: {sizes}, {count}"
        return f"budget {self.target:,}: not met within {TOLERANCE:.0%}; nearest is {sizes}, {count}"


def fit_budget(skeleton: nn.Module, config: PeftConfig | None, budget: Budget, frozen: bool = False) -> BudgetFit:
    """Find the size of a strategy that brings its trainable parameters nearest to a budget.

    Every count is exact: the strategy is attached to a copy of the skeleton. A setting whose counts never fall is
    searched by interpolation and bisection. Any other setting is searched by an estimate that counts correct. Sizes
    that the method refuses are skipped.

    Some methods have two settings. If the first does not meet the budget, the second is searched, then the first again.
    The last search is over the second setting, with the smallest value of the first.

    Args:
        skeleton: The backbone, best on the meta device; it is not changed.
        config: The strategy. Its other settings and the scale alpha / r of its update do not change. None means full
            fine-tuning.
        budget: The budget.
        frozen: Without a strategy, whether nothing is trained.

    Returns:
        The nearest fit, even if it is not within 1 %.

    Raises:
        UserError: The strategy does not fit the backbone at any size, or the scale of a layer would change.
    """
    target = budget.target(skeleton)
    if config is None:
        return BudgetFit(None, 0 if frozen else trainable_parameters(skeleton, None), target, fixed=True)
    layers = [*target_layers(skeleton, config), *target_parameter_shapes(skeleton, config)]
    settings = searched_settings(config, size_settings_of(config), layers)
    if not settings:
        return BudgetFit(config, trainable_parameters(skeleton, config), target, fixed=True)
    shapes = target_shapes(skeleton, config)
    best = _Search(skeleton, config, settings[0], shapes, target).run()
    for smallest_first, index in ((False, 1), (False, 0), (True, 1)) if len(settings) == 2 else ():
        if best.within:
            break
        start = _Search(skeleton, config, settings[0], shapes, target).at(0) if smallest_first else best.config
        fit = _Search(skeleton, start, settings[index], shapes, target).run()
        best = min(best, fit, key=lambda fit: abs(fit.relative_error))
    assert best.config is not None
    names = [f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(best.config, f.name)]
    changes = {name: getattr(best.config, name) for name in names}
    return dataclasses.replace(best, changes=changes, before={name: getattr(config, name) for name in names})


def trainable_parameters(skeleton: nn.Module, config: PeftConfig | None) -> int:
    """Return the number of parameters that a strategy trains on a backbone, without those of a new head.

    Args:
        skeleton: The backbone, best on the meta device; it is not changed.
        config: The strategy; None means full fine-tuning.

    Raises:
        UserError: The strategy does not fit the backbone.
    """
    if config is None:
        head = [p for name in new_head(skeleton) for p in skeleton.get_submodule(name).parameters()]
        return sum(p.numel() for p in skeleton.parameters()) - sum(p.numel() for p in head)
    config = countable(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # attaching the strategy for the run shows them
        try:
            with torch.device("meta"):  # large adapters need no memory there
                adapted = attach(copy.deepcopy(skeleton), config, 0)
        except (RuntimeError, NotImplementedError):  # methods such as BOFT compute with their new tensors
            adapted = attach(copy.deepcopy(skeleton), config, 0)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    return trained - sum(parameter.numel() for parameter in head_parameters(adapted))


def countable(config: PeftConfig) -> PeftConfig:
    """Copy a config without initialisations that need weights or a tokenizer; they change no shape.

    MiCA stays: it freezes B, so that the number changes.
    """
    changes: dict[str, Any] = {}
    start = getattr(config, "init_lora_weights", None)
    if isinstance(start, str) and start != "mica":
        changes["init_lora_weights"] = True
    if hasattr(config, "prompt_tuning_init"):
        changes["prompt_tuning_init"] = "RANDOM"
    return dataclasses.replace(config, **changes)


class _Search:
    """The search over the values of one size setting of a config."""

    def __init__(self, skeleton: nn.Module, config: Any, setting: SizeSetting, shapes: Shapes, target: int) -> None:
        self.skeleton, self.config, self.setting, self.shapes, self.target = skeleton, config, setting, shapes, target
        self.values: Sequence[int | None] = setting.candidates(config, shapes)
        self.counts: dict[int, float] = {}  # by index; infinite if the method refuses the value
        self.refusal: Exception | None = None

    def run(self) -> BudgetFit:
        """Return the candidate nearest to the budget, the config itself if there is no candidate."""
        if not self.values:
            return BudgetFit(self.config, trainable_parameters(self.skeleton, self.config), self.target)
        if self.setting.estimate is not None:
            self._by_estimate(self.setting.estimate)
        else:
            first = next((i for i in range(min(TRIALS, len(self.values))) if self._count(i) < math.inf), 0)
            between(lambda index: self._count(first + index), len(self.values) - first, self.target)
        accepted = {index: int(count) for index, count in self.counts.items() if count < math.inf}
        if not accepted:
            raise UserError(f"model.budget: {self.refusal}") from self.refusal
        index = min(accepted, key=lambda i: (abs(accepted[i] - self.target), accepted[i]))
        return BudgetFit(self.at(index), accepted[index], self.target)

    def at(self, index: int) -> Any:
        """Return the config with the candidate at an index."""
        value, name = self.values[index], self.setting.field
        if value == getattr(self.config, name):
            return self.config
        return dataclasses.replace(self.config, **{name: value, **self.setting.dependents(self.config, value)})

    def _count(self, index: int) -> float:
        if index not in self.counts:
            try:
                self.counts[index] = trainable_parameters(self.skeleton, self.at(index))
            except (UserError, ValueError) as error:
                self.counts[index], self.refusal = math.inf, error
        return self.counts[index]

    def _by_estimate(self, estimate: Callable[[Any, Any, Shapes], int]) -> None:
        """Count the candidate with the nearest estimate, shift the estimates to its count, and repeat.

        The search ends when the nearest candidate is already counted.
        """
        fixed_ranks = self.setting.field == rank_field(self.config) and getattr(self.config, "rank_pattern", None)
        shapes = target_shapes(self.skeleton, self.config, common_rank=True) if fixed_ranks else self.shapes
        guesses = [estimate(self.config, value, shapes) for value in self.values]
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
    """Evaluate a count that never falls until the target lies between two neighbouring indices.

    Small indices are tried first, since a trial with fewer parameters is cheaper. A linear count needs four
    evaluations; for any other count their number grows with the logarithm of the index.

    Args:
        count: Count at an index from 0 to ``size - 1``; infinite from the first refused index on.
        size: Number of indices.
        target: The value to enclose.
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
    """Return the file of ``like``: a path in ``folder``, the folder of the naming file, or in the working directory.

    Else it is the file of the package with this name.

    Raises:
        UserError: There is no such file.
    """
    folders = [place for place in (folder, Path()) if place is not None]
    return config_file(path, "experiments", "model.budget.like", folders).resolve()


def _strategy_of(file: Path) -> PeftConfig | None:
    """Return the strategy under ``model.adapter`` in a YAML file."""
    content = read_yaml(file, "model.budget.like").value
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or "adapter" not in model or model.get("frozen"):
        raise UserError(f"model.budget.like: {str(file)!r} names no trainable strategy under model.adapter")
    adapter = model["adapter"]
    if adapter is None:
        return None
    class_path = adapter.get("class_path", "") if isinstance(adapter, dict) else str(adapter)
    package, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(package or "peft"), name)
        if not (isinstance(kind, type) and issubclass(kind, PeftConfig)):
            raise UserError("not a peft.PeftConfig")
        strategy: PeftConfig = kind(**((adapter.get("init_args") if isinstance(adapter, dict) else None) or {}))
    except (ImportError, AttributeError, TypeError, ValueError, UserError) as error:
        raise UserError(f"model.budget.like: {str(file)!r}: {class_path}: {one_line(error)}") from error
    return strategy
