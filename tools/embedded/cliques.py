"""Which (object, property) pairs the science questions ask about: the coupling of ``pairs`` for more than two choices.

The properties are divided into groups. A group asks about objects that surely have exactly one of its properties and
surely lack the others, equally many for each property. A tuple holds one object for each property. Rows ask of a tuple
which object has a property, for each property in turn, and which property an object has, for each object in turn. So
each object, and each property, is right exactly as often as the others of its row, and no choice is typical. All pairs
of a row, also the wrong ones, belong to one split. No pair is in two splits.
"""

from __future__ import annotations

import functools
import itertools
import random
from dataclasses import dataclass
from functools import cache

from smoa_lightning.embedded import SPLITS
from tools.embedded.world import properties, things

MOST = 14  # objects of a property in a group at most
LEAST = 7  # and at least, so that each split has some
EXCHANGES = 1500
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class Clique:
    """Properties of a group, and for each one its objects (indices in ``world.things()``) in one split."""

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    def tuples(self, rounds: int) -> list[tuple[int, ...]]:
        """Return tuples of one object for each property; every object is in ``rounds`` tuples."""
        count = len(self.members[0])
        return [
            tuple(side[(place + turn * number) % count] for number, side in enumerate(self.members))
            for turn in range(rounds)
            for place in range(count)
        ]


@cache
def cliques(sizes: tuple[int, ...], seed: str) -> dict[str, tuple[Clique, ...]]:
    """Return the cliques of each split for a partition of the properties into groups of these sizes.

    Properties beyond the sum of the sizes, the rarest ones first, are not asked about.
    """
    source = random.Random(seed)
    chosen: dict[str, list[Clique]] = {split: [] for split in SPLITS}
    for names in _partition(sizes, source):
        members = [[place for place in range(len(things())) if side >> place & 1] for side in _sides(names)]
        sides = [source.sample(side, len(side)) for side in members]
        size = min(MOST, min(map(len, sides)))
        held = max(2, round(HELD_OUT_SHARE * size))
        parts = {"validation": slice(0, held), "test": slice(held, 2 * held), "train": slice(2 * held, size)}
        for split, part in parts.items():
            chosen[split].append(Clique(names, tuple(tuple(side[part]) for side in sides)))
    return {split: tuple(groups) for split, groups in chosen.items()}


def _partition(sizes: tuple[int, ...], source: random.Random) -> list[tuple[str, ...]]:
    """Return a partition whose scarcest property has many objects, by exchanging properties as long as that helps."""
    ranked = sorted(properties(), key=lambda name: sum(thing.has(name) is True for thing in things()))
    names = ranked[len(ranked) - sum(sizes) :]
    source.shuffle(names)
    best = _score(names, sizes)
    for _ in range(EXCHANGES):
        one, two = source.sample(range(len(names)), 2)
        names[one], names[two] = names[two], names[one]
        score = _score(names, sizes)
        if score < best:
            names[one], names[two] = names[two], names[one]
        best = max(best, score)
    if best[0] < LEAST:
        raise ValueError(f"no partition of the properties into {sizes} leaves {LEAST} objects for each")
    return _cut(names, sizes)


def _cut(names: list[str], sizes: tuple[int, ...]) -> list[tuple[str, ...]]:
    ends = list(itertools.accumulate(sizes))
    return [tuple(names[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def _score(names: list[str], sizes: tuple[int, ...]) -> tuple[int, int]:
    smallest = [min(MOST, *(side.bit_count() for side in _sides(group))) for group in _cut(names, sizes)]
    return min(smallest), sum(smallest)


def _sides(names: tuple[str, ...]) -> list[int]:
    """Return for each property the objects that surely have it and surely lack the others, as bits of a number."""
    true, false = _bits()
    return [
        functools.reduce(int.__and__, (false[other] for other in names if other != name), true[name]) for name in names
    ]


@cache
def _bits() -> tuple[dict[str, int], dict[str, int]]:
    """Return for each property the objects that surely have it, and those that surely lack it, as bits of numbers."""
    states = {name: [thing.has(name) for thing in things()] for name in properties()}
    true, false = (
        {name: sum(1 << place for place, state in enumerate(row) if state is sign) for name, row in states.items()}
        for sign in (True, False)
    )
    return true, false
