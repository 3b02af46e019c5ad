"""The searched settings of a study: each has a range or choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from smoa_lightning.ablation.study.conditions import Condition, Lookup
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.keys import Keys

RANGE_KEYS = ("low", "high", "log", "step", "points", "only")
CHOICE_KEYS = ("choices", "only")


@dataclass(frozen=True)
class Parameter:
    """One searched setting, with a range or choices.

    Attributes:
        key: Full configuration key.
        name: Name in the study file.
        choices: The values; empty for a range.
        low: Smallest value of a range.
        high: Largest value of a range, included in the range.
        log: Whether the range is searched on a logarithmic scale.
        step: Distance between values; ``None`` for all numbers, or all whole numbers.
        integer: Whether the range has only whole numbers.
        points: Values of the first trials of every cell; empty for evenly spread values.
        only: The cells that the parameter applies to; ``None`` for all cells.
        reach: Smallest and largest value that a trial beyond the range may have.
    """

    key: str
    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    integer: bool = False
    points: tuple[float, ...] = ()
    only: Condition | None = None
    reach: tuple[float, float] = (0.0, math.inf)

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values in order; ``None`` if their number is not finite or they are not evenly spaced."""
        if self.choices:
            return self.choices
        step = self.step if self.step is not None else 1 if self.integer and not self.log else None
        if step is None:
            return None
        if self.integer:
            return tuple(range(int(self.low), int(self.high) + 1, int(step)))
        low, high, distance = (Decimal(str(number)) for number in (self.low, self.high, step))  # 3 * 0.1 is 0.3
        return tuple(float(low + index * distance) for index in range(int((high - low) / distance) + 1))

    @property
    def example(self) -> Any:
        """One possible value, to check the setting with."""
        return self.choices[0] if self.choices else self.low

    def for_cell(self, lookup: Lookup) -> bool:
        """Whether the parameter applies to a cell."""
        return self.only is None or self.only.holds(lookup)


def parse_parameter(
    name: str, given: Any, keys: Keys, where: str, condition: Callable[[Any, str], Condition]
) -> Parameter:
    """Read ``{low, high, log, step}`` or ``{choices}`` of a configuration key.

    Raises:
        UserError: A key is unknown, the bounds are not a range, or the setting cannot take a value.
    """
    key = keys.find(name, where)
    if not isinstance(given, Mapping) or ("choices" in given) == ("low" in given or "high" in given):
        raise UserError(
            f"{where}{name} must be a range, {{low: 1e-4, high: 1e-1, log: true}}, or {{choices: [0.0, 0.1]}}"
        )
    allowed = CHOICE_KEYS if "choices" in given else RANGE_KEYS
    for word in given:
        if word not in allowed:
            raise UserError(f"{where}{name}: unknown key {word!r}; the nearest is {nearest(str(word), allowed, 1)}")
    only = condition(given["only"], where) if "only" in given else None
    if "choices" in given:
        return Parameter(key, name, _choices(name, key, given["choices"], keys, where), only=only)
    return _range(name, key, given, keys, where, only)


def _choices(name: str, key: str, given: Any, keys: Keys, where: str) -> tuple[Any, ...]:
    if not isinstance(given, list) or not given:
        raise UserError(f"{where}{name}: choices must be a list of values, such as [0.0, 0.05]")
    for index, value in enumerate(given):
        if isinstance(value, list | Mapping):
            raise UserError(f"{where}{name}: {value!r} cannot be searched; choices must be numbers, words or null")
        if value in given[:index]:
            raise UserError(f"{where}{name}: choices have {value!r} twice")
        keys.check(key, value, where)
    return tuple(given)


def _range(name: str, key: str, given: Mapping[str, Any], keys: Keys, where: str, only: Condition | None) -> Parameter:
    for bound in ("low", "high", "step"):
        value = given.get(bound)
        if (value is None and bound != "step") or isinstance(value, bool | str | list | Mapping):
            raise UserError(f"{where}{name}: {bound} is {value!r}, but must be a number")
        if value is not None and bound != "step":
            keys.check(key, value, where)
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    whole = keys.whole(key)
    integer = all(isinstance(v, int) for v in (low, high, step or 1)) if whole is None else whole
    if not isinstance(log, bool):
        raise UserError(f"{where}{name}: log is {log!r}, but must be true or false")
    if not low < high:
        raise UserError(f"{where}{name}: low is {low} and high is {high}, but low must be smaller than high")
    if log and (low <= 0 or step is not None):
        raise UserError(f"{where}{name}: a logarithmic range needs a low above 0 and no step")
    if step is not None and (step <= 0 or (integer and not isinstance(step, int))):
        raise UserError(f"{where}{name}: step is {step}, but must be a {'whole ' if integer else ''}number above 0")
    parameter = Parameter(key, name, (), low, high, log, step, integer, only=only)
    return replace(parameter, points=_points(parameter, given["points"], where)) if "points" in given else parameter


def _points(parameter: Parameter, given: Any, where: str) -> tuple[float, ...]:
    """Return the values that a study file gives for the first trials.

    Raises:
        UserError: They are no list of different values of the range.
    """
    name = parameter.name
    if not isinstance(given, list) or not given:
        raise UserError(f"{where}{name}: points is {given!r}, but must be a list of values, such as [1.0e-3, 1.0e-2]")
    for index, value in enumerate(given):
        number = isinstance(value, int if parameter.integer else int | float) and not isinstance(value, bool)
        if not number or not parameter.low <= value <= parameter.high:
            kind = "whole number" if parameter.integer else "number"
            near = f"{parameter.low} to {parameter.high}"
            raise UserError(f"{where}{name}: points has {value!r}, but each must be a {kind} of the range, {near}")
        if parameter.values is not None and value not in parameter.values:
            near = min(parameter.values, key=lambda possible: abs(possible - value))
            raise UserError(f"{where}{name}: points has {value!r}, but the nearest value with this step is {near}")
        if value in given[:index]:
            raise UserError(f"{where}{name}: points has {value!r} twice")
    return tuple(given)
