"""Which training rows select the checkpoint, and which are trained on: seeded, grouped, never overlapping."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

DEFAULT_SELECTION_ROWS = 500
DEFAULT_SELECTION_SHARE = 0.05


def default_selection_rows(num_rows: int) -> int:
    """Return min(500, 5 %) of the training rows, at least one.

    >>> default_selection_rows(1000), default_selection_rows(16000)
    (50, 500)
    """
    return max(1, min(DEFAULT_SELECTION_ROWS, int(num_rows * DEFAULT_SELECTION_SHARE)))


def hold_out(groups: Sequence[Hashable], num_selection: int, seed: int) -> tuple[list[int], list[int]]:
    """Split rows into (training, selection) so that no group stands on both sides.

    Whole groups are taken in a seeded order as long as they fit, so the selection has ``num_selection`` rows, or fewer
    where no group is left that is small enough.

    Args:
        groups: The group of each row.
        num_selection: How many rows to hold out at most.
        seed: Seed of the choice.

    Returns:
        Row indices of both sides, ascending.
    """
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    names = list(members)
    random.Random(f"selection/{seed}").shuffle(names)
    selection: list[int] = []
    for name in names:
        if len(selection) + len(members[name]) <= num_selection:
            selection += members[name]
    held_out = set(selection)
    return [row for row in range(len(groups)) if row not in held_out], sorted(selection)


def subset(rows: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """Return at most ``limit`` of the rows in their order, chosen by the seed; a larger limit keeps a smaller one's."""
    if limit is None or limit >= len(rows):
        return list(rows)
    shuffled = list(rows)
    random.Random(f"limit/{seed}").shuffle(shuffled)
    return sorted(shuffled[:limit])
