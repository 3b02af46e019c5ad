"""The choice of rows of several tasks for one training set."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np

from smoa_lightning.common.errors import UserError


def counts(sizes: Mapping[str, int], weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Divide ``total`` rows by weight; the rows that rounding leaves go to the largest remainders.

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
) -> tuple[np.ndarray, np.ndarray]:
    """Return for every row of a mixture the number of its task, from 0 on, and its position among the task's rows.

    Without weights the mixture has each row once, or a seeded choice of ``total`` rows. With weights it has ``total``
    rows, by default as many as all tasks together. A task with too many rows gives a seeded choice. A task with too few
    rows gives all of them, repeated as often as needed, and a seeded choice for the rest.

    Args:
        sizes: Task -> number of its training rows.
        weights: Task -> share, in any unit.
        total: Number of rows in the mixture.
        seed: Seed of the choices.

    Returns:
        Tasks (N,) int16 and positions (N,) int64.
    """
    if weights is None:
        parts = [np.arange(size) for size in sizes.values()]
    else:
        shares = counts(sizes, weights, total or sum(sizes.values()))
        parts = [_drawn(sizes[name], count, f"mixture/{seed}/{name}") for name, count in shares.items()]
    tasks = np.repeat(np.arange(len(parts), dtype=np.int16), [len(part) for part in parts])
    positions = np.concatenate(parts)
    if weights is not None or total is None or total >= len(tasks):
        return tasks, positions
    chosen = np.array(random.Random(f"mixture/{seed}").sample(range(len(tasks)), total))
    by_name = np.argsort(np.argsort(list(sizes)))  # the choice is sorted by the name of the task
    chosen = chosen[np.lexsort((positions[chosen], by_name[tasks[chosen]]))]
    return tasks[chosen], positions[chosen]


def _drawn(size: int, count: int, seed: str) -> np.ndarray:
    """Return ``count`` positions below ``size``: each as often as possible, and a seeded choice for the rest."""
    rounds, rest = divmod(count, size)
    drawn = sorted(random.Random(seed).sample(range(size), rest))
    return np.concatenate([np.tile(np.arange(size), rounds), np.array(drawn, dtype=np.int64)])


def check_weights(tasks: list[str] | Mapping[str, float] | None) -> tuple[list[str], dict[str, float] | None]:
    """Return the names of the tasks of a mixture, and their weights if they have weights.

    Raises:
        UserError: no mixture, a single task, a task named twice, a weight that is not positive and finite.
    """
    if not tasks or len(tasks) < 2:
        raise UserError("data.mixture: task mixture needs at least two tasks, such as [boolq, piqa].")
    if isinstance(tasks, Mapping):
        for name, weight in tasks.items():
            if not 0 < weight < math.inf:
                raise UserError(f"data.mixture: the weight of {name} is {weight}, but must be above 0 and finite.")
        return list(tasks), {name: float(weight) for name, weight in tasks.items()}
    if twice := next((name for name in tasks if tasks.count(name) > 1), None):
        raise UserError(f"data.mixture: the task {twice} is named twice; give weights instead.")
    return list(tasks), None
