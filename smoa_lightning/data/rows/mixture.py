"""Which rows of several tasks make up one training set."""

from __future__ import annotations

import random
from collections.abc import Mapping

from smoa_lightning.common.errors import UserError


def counts(sizes: Mapping[str, int], weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Share ``total`` rows out by weight; what rounding leaves goes to the largest remainders.

    >>> counts({"a": 10, "b": 90}, {"a": 1, "b": 2}, 100)
    {'a': 33, 'b': 67}
    """
    whole = sum(weights.values())
    exact = {name: total * weights[name] / whole for name in sizes}
    found = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: found[name] - exact[name])  # stable: ties go to the first
    for name in by_remainder[: total - sum(found.values())]:
        found[name] += 1
    return found


def mix(
    sizes: Mapping[str, int], weights: Mapping[str, float] | None, total: int | None, seed: int
) -> list[tuple[str, int]]:
    """Return (task, position of a row) of every row of a mixture.

    Without weights each row stands once, so that the tasks take part by their size. With weights the mixture has
    ``total`` rows, by default as many as all tasks together: a task with too many rows gives a seeded choice of them, a
    task with too few gives all of them as often as it takes and a choice for the rest.

    Args:
        sizes: Task -> number of its training rows.
        weights: Task -> share, in any unit.
        total: Number of rows in the mixture; without weights a seeded choice of all rows.
        seed: Seed of the choices.
    """
    if weights is None:
        rows = [(name, row) for name, size in sizes.items() for row in range(size)]
        if total is None or total >= len(rows):
            return rows
        return sorted(random.Random(f"mixture/{seed}").sample(rows, total))
    chosen = []
    for name, count in counts(sizes, weights, total or sum(sizes.values())).items():
        rounds, rest = divmod(count, sizes[name])
        drawn = sorted(random.Random(f"mixture/{seed}/{name}").sample(range(sizes[name]), rest))
        chosen += [(name, row) for _ in range(rounds) for row in range(sizes[name])] + [(name, row) for row in drawn]
    return chosen


def check_weights(tasks: list[str] | Mapping[str, float] | None) -> tuple[list[str], dict[str, float] | None]:
    """Return the names of a mixture's tasks, and their weights where there are some.

    Raises:
        UserError: no mixture, a single task, a task named twice, a weight that is not positive.
    """
    if not tasks or len(tasks) < 2:
        raise UserError("data.mixture: task mixture needs two tasks at least, such as [boolq, piqa].")
    if isinstance(tasks, Mapping):
        for name, weight in tasks.items():
            if not weight > 0:
                raise UserError(f"data.mixture: the weight of {name} is {weight}, but must be above 0.")
        return list(tasks), {name: float(weight) for name, weight in tasks.items()}
    if twice := next((name for name in tasks if tasks.count(name) > 1), None):
        raise UserError(f"data.mixture: names {twice} twice; give weights instead.")
    return list(tasks), None
