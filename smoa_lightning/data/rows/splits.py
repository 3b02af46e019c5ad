"""Which training rows select the checkpoint, and which are trained on: seeded, grouped, never overlapping."""

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
    """Return the numbers below ``count`` in the order that ``source`` gives a list of them, (count,) int32."""
    numbers = array("i", range(count))  # a list would take 40 bytes a number
    source.shuffle(numbers)
    return np.frombuffer(numbers, dtype=np.int32)


def shuffled(numbers: Sequence[int] | np.ndarray, seed: str) -> np.ndarray:
    """Return the numbers in the order that ``random.Random(seed)`` gives a list of them."""
    ordered: np.ndarray = np.asarray(numbers)[permutation(random.Random(seed), len(numbers))]
    return ordered


def members(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which rows are in each group, the groups in the order of their first rows.

    Args:
        groups: A number for the group of each row, (N,).

    Returns:
        The rows of all groups, (N,), and for each group where it begins there and its size.
    """
    rows = np.argsort(groups, kind="stable")
    ordered = groups[rows]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sizes = np.diff(np.append(starts, len(rows)))
    by_first = np.argsort(rows[starts])
    return rows, starts[by_first], sizes[by_first]


def hold_out(groups: np.ndarray, num_selection: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (training, selection) so that no group has rows in both.

    Whole groups are taken in a seeded order as long as they fit, so the selection has ``num_selection`` rows, or fewer
    where no group is left that is small enough.

    Args:
        groups: A number for the group of each row, (N,).
        num_selection: How many rows to hold out at most.
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


def subset(rows: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Return at most ``limit`` of the rows in their order, chosen by the seed; a larger limit keeps a smaller one's."""
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(shuffled(rows, f"limit/{seed}")[:limit])
