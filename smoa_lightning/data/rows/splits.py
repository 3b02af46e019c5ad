"""The seeded division of training rows: some select the checkpoint, the rest is trained on. No group is in both."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

import numpy as np

DEFAULT_SELECTION_ROWS = 500
DEFAULT_SELECTION_SHARE = 0.05


def default_selection_rows(num_rows: int) -> int:
    """Return min(500, 5 %) of the training rows, at least one.

    >>> default_selection_rows(1000), default_selection_rows(16000)
    (50, 500)
    """
    return max(1, min(DEFAULT_SELECTION_ROWS, int(num_rows * DEFAULT_SELECTION_SHARE)))


def permutation(source: random.Random, count: int) -> np.ndarray:
    """Return the numbers below ``count`` as ``source.shuffle`` orders a list of them, (count,) int32."""
    numbers = array("i", range(count))  # a list needs 40 bytes for each number
    source.shuffle(numbers)
    return np.frombuffer(numbers, dtype=np.int32)


def shuffled(numbers: Sequence[int] | np.ndarray, seed: str) -> np.ndarray:
    """Return the numbers as ``random.Random(seed).shuffle`` orders a list of them."""
    ordered: np.ndarray = np.asarray(numbers)[permutation(random.Random(seed), len(numbers))]
    return ordered


def members(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of each group; the groups are in the order of their first rows.

    Args:
        groups: The number of the group of each row, (N,).

    Returns:
        The rows of all groups, (N,), the start of each group in them, and its size.
    """
    rows = np.argsort(groups, kind="stable")
    ordered = groups[rows]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sizes = np.diff(np.append(starts, len(rows)))
    by_first = np.argsort(rows[starts])
    return rows, starts[by_first], sizes[by_first]


def hold_out(groups: np.ndarray, num_selection: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (training, selection) so that no group has rows in both.

    Groups are held out in a seeded order, each if it still fits. So the selection has ``num_selection`` rows, or fewer
    if all remaining groups are too large.

    Args:
        groups: The number of the group of each row, (N,).
        num_selection: Largest number of rows to hold out.
        seed: Seed of the choice.

    Returns:
        Row indices of both sides, ascending.
    """
    rows, starts, sizes = members(groups)
    trained, left = np.ones(len(rows), dtype=bool), num_selection
    for group in permutation(random.Random(f"selection/{seed}"), len(sizes)):
        if left == 0:
            break
        if sizes[group] <= left:
            trained[rows[starts[group] : starts[group] + sizes[group]]] = False
            left -= sizes[group]
    return np.flatnonzero(trained), np.flatnonzero(~trained)


def not_held_out(groups: np.ndarray, number: int, is_default: bool = False) -> str:
    """Return why no rows can be held out, or all of them would be, with the nearest valid number.

    Args:
        groups: The number of the group of each row, (N,).
        number: The rows to hold out.
        is_default: Whether the number is the default.

    >>> not_held_out(np.arange(12), 40)
    'data.selection_rows is 40, but there are 12 training rows: at most 11 can be held out'
    """
    sizes = members(groups)[2]
    total, smallest = len(groups), min(sizes)
    rows = "there is only one training row" if total == 1 else f"there are {total:,} training rows"
    together = ", since rows of one group stay together" if total > len(sizes) else ""
    reason = f"{rows}: at most {total - smallest:,} can be held out{together}"
    if len(sizes) == 1:
        group = "" if total == 1 else " of one group (the same question, passage or conversation), which stays together"
        reason = f"{rows}{group}: set data.selection_rows: 0 to train on all rows"
    elif number < smallest:
        reason = (
            f"the smallest group of training rows has {smallest:,}, which stay together: the smallest value is "
            f"{smallest:,}, or 0 to train on all rows"
        )
    return f"data.selection_rows is {number:,}{' by default' if is_default else ''}, but {reason}"


def subset(rows: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Return at most ``limit`` rows in order, chosen by the seed; a larger limit contains the rows of a smaller one."""
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(shuffled(rows, f"limit/{seed}")[:limit])
