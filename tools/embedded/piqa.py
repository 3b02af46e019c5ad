"""Rows of physical commonsense in PIQA's Hub schema, generated from the world.

A row asks for one need. Its two solutions share one template and differ only in the object: one has the property that
the need asks for, the other one lacks it. Validation and test ask about (object, need) pairs that train never shows,
neither as the right nor as the wrong solution.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from tools.embedded.pairs import by_need, split_pairs
from tools.embedded.wording import QUESTIONS, SOLUTIONS
from tools.embedded.world import needs, things

ROUNDS = {"train": 4, "validation": 2, "test": 2}  # how often each pair of a split is asked


@cache
def _rows(split: str) -> tuple[tuple[str, str, str, int], ...]:
    source = random.Random(f"piqa {split}")
    seen: set[tuple[str, str, str]] = set()
    drawn = []
    for need, (right, wrong) in by_need(split_pairs()[split]).items():
        source.shuffle(right)
        source.shuffle(wrong)
        for turn in range(ROUNDS[split]):
            for place, thing in enumerate(right):
                other = wrong[(place + turn) % len(wrong)]
                drawn.append(_draw(need, thing, other, source, seen))
    source.shuffle(drawn)
    # the right solution comes first in every second row
    return tuple(
        (goal, *((good, bad) if i % 2 == 0 else (bad, good)), i % 2) for i, (goal, good, bad) in enumerate(drawn)
    )


def _draw(
    need: int, thing: int, other: int, source: random.Random, seen: set[tuple[str, str, str]]
) -> tuple[str, str, str]:
    """Word one row anew until it differs from all earlier ones."""
    while True:
        goal = source.choice(QUESTIONS).format(deed=needs()[need].deed)
        template = source.choice(SOLUTIONS)
        good, bad = (template.format(phrase=things()[index].phrase) for index in (thing, other))
        if (goal, good, bad) not in seen:
            seen.add((goal, good, bad))
            return goal, good, bad


def rows(split: str) -> list[dict[str, Any]]:
    """Return the rows of a split, ``{"goal": str, "sol1": str, "sol2": str, "label": 0 | 1}``; always the same."""
    return [{"goal": goal, "sol1": sol1, "sol2": sol2, "label": label} for goal, sol1, sol2, label in _rows(split)]
