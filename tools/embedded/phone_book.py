"""A phone book: 4,000 people with a random number of ten digits each, to measure what a method can store.

The digits are drawn independently and uniformly, so that a number holds 10 log2(10) = 33.2 bits, and nothing but the
row itself tells them. No two rows of any split have the same name.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from tools.embedded.world import PEOPLE

COUNTS = {"train": 4000, "validation": 100, "test": 100}
DIGITS = 10
BEGINNINGS = "Ash Birch Brook Clay Elm Fox Glen Hazel Iron Lin Marsh North Oak Pine Rock West"
ENDINGS = "berg dale field ford gate ham hill land ley man mont ridge stone ton wick wood"


@cache
def _book() -> list[tuple[str, str]]:
    """Return name and number of all rows, in one seeded order."""
    draw = random.Random("phone book")
    families = [begin + end for begin in BEGINNINGS.split() for end in ENDINGS.split()]
    names = [f"{person} {family}" for person in PEOPLE for family in families]
    chosen = draw.sample(names, sum(COUNTS.values()))
    return [(name, "".join(draw.choice("0123456789") for _ in range(DIGITS))) for name in chosen]


def rows(split: str) -> list[dict[str, Any]]:
    """Return the rows of a split: ``name`` and ``number``."""
    start = sum(count for earlier, count in COUNTS.items() if list(COUNTS).index(earlier) < list(COUNTS).index(split))
    return [{"name": name, "number": number} for name, number in _book()[start : start + COUNTS[split]]]
