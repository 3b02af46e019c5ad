"""Trials beyond the ends of a range, while the best value of a cell is the smallest or largest tried one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smoa_lightning.ablation.study.parameters import Parameter


def beyond(
    best: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], parameters: Sequence[Parameter], factor: float
) -> dict[str, Any] | None:
    """Return the values of the next trial beyond what was tried; ``None`` if no best value is at an end.

    A parameter with a logarithmic range moves by the factor if its best value is the largest or the smallest that was
    tried, but not beyond its reach. The other parameters keep their best values.

    Args:
        best: Values of the best trial.
        tried: Values of all trials, also of those that were pruned or have failed.
        parameters: The parameters of the cell.
        factor: Next value / best value, above 1.

    >>> rate = Parameter("lr", "lr", low=0.01, high=0.1, log=True)
    >>> beyond({"lr": 0.1}, [{"lr": 0.01}, {"lr": 0.1}], [rate], 2.0)
    {'lr': 0.2}
    """
    moved = {}
    for parameter in parameters:
        if not parameter.log:
            continue
        value, values = best[parameter.key], [each[parameter.key] for each in tried]
        if value in (max(values), min(values)):
            further = step(parameter, value, factor if value == max(values) else 1 / factor)
            if parameter.reach[0] <= further <= parameter.reach[1]:
                moved[parameter.key] = further
    found = {**best, **moved}
    return found if found != dict(best) else None


def outside(parameter: Parameter, factor: float, trials: int) -> tuple[list[float], list[float]]:
    """Return the values below and above a range that so many trials may try, from the range outwards.

    >>> outside(Parameter("r", "r", low=2, high=8, log=True, integer=True), 2.0, 2)
    ([1], [16, 32])
    """
    found: list[list[float]] = []
    for value, by in ((parameter.low, 1 / factor), (parameter.high, factor)):
        values = [value]
        for _ in range(trials):
            values.append(step(parameter, values[-1], by))
        found.append(list(dict.fromkeys(values))[1:])
    return found[0], found[1]


def step(parameter: Parameter, value: float, factor: float) -> float:
    """Return a value times a factor; a whole number changes by at least one and stays above 0."""
    if not parameter.integer:
        return float(f"{value * factor:.4g}")
    moved = max(round(value * factor), value + 1) if factor > 1 else min(round(value * factor), value - 1)
    return max(1, int(moved))
