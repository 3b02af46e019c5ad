"""Which (object, need) pairs the data sets ask about, as right and wrong answers, and in which split.

Cues are excluded by construction, not by filtering. The properties are coupled: the wrong answers for a property are
objects of another property, its decoy, and the wrong answers for the decoy are objects of the first. Let A be the
objects of the first property only, and B those of the second only, equally many of each:

    need of the first:  right A, wrong B          need of the second:  right B, wrong A

So each object is right exactly as often as it is wrong, in every split. Text that is wrong as often as right names both
answers of a need equally often. A model that knows only which objects are named with a need stays at chance.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache

from smoa_lightning.embedded import SPLITS
from tools.embedded.world import needs, properties, things

MOST = 28  # objects of a property that are asked for, so that common properties do not outnumber rare ones
HELD_OUT_SHARE = 0.18  # of the objects of a need, in validation and in test each
SEED = "pairs"
# three ways of coupling four (six) neighbours, so that the three needs of a property have three different decoys
COUPLINGS = {
    4: (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))),
    6: (((0, 1), (2, 3), (4, 5)), ((0, 2), (1, 4), (3, 5)), ((0, 3), (1, 5), (2, 4))),
}


@dataclass(frozen=True)
class Pair:
    """An object and a need, by their indices in ``world.things()`` and ``world.needs()``."""

    thing: int
    need: int
    right: bool


@cache
def split_pairs() -> dict[str, tuple[Pair, ...]]:
    """Return the pairs of each split; no (object, need) is in two splits, and every object and need is in train."""
    source = random.Random(SEED)
    chosen: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    asked: Counter[int] = Counter()
    taught: Counter[int] = Counter()
    for first, second in decoys():
        one, two = needs()[first].needs, needs()[second].needs
        sides = [_only(one, two, asked, source), _only(two, one, asked, source)]
        size = min(len(sides[0]), len(sides[1]), MOST)
        held = round(HELD_OUT_SHARE * size)
        for side, (right, wrong) in zip(sides, ((first, second), (second, first)), strict=True):
            taken = side[:size]
            asked.update(taken)
            source.shuffle(taken)
            taken.sort(key=lambda thing: taught[thing] == 0)  # an object that train does not know yet goes there
            parts = {"validation": taken[:held], "test": taken[held : 2 * held], "train": taken[2 * held :]}
            taught.update(parts["train"])
            for split, members in parts.items():
                for thing in members:
                    chosen[split] += [Pair(thing, right, True), Pair(thing, wrong, False)]
    return {split: tuple(sorted(pairs, key=lambda pair: (pair.need, pair.thing))) for split, pairs in chosen.items()}


@cache
def decoys() -> tuple[tuple[int, int], ...]:
    """Return the coupled needs, by index: the property of each is the decoy of the other.

    Properties of about the same number of objects are coupled, so that both answers of a row are about equally common.
    """
    own: dict[str, list[int]] = defaultdict(list)
    for index, need in enumerate(needs()):
        own[need.needs].append(index)
    ranked = sorted(properties(), key=lambda name: sum(thing.has(name) is True for thing in things()))
    coupled = []
    while ranked:
        size = 4 if len(ranked) % 4 == 0 or len(ranked) > 6 else 6
        group, ranked = ranked[:size], ranked[size:]
        for turn, couples in enumerate(COUPLINGS[size]):
            coupled += [(own[group[left]][turn], own[group[right]][turn]) for left, right in couples]
    return tuple(coupled)


def _only(name: str, other: str, asked: Counter[int], source: random.Random) -> list[int]:
    """Return the objects that surely have one property and surely lack the other, those asked for least often first."""
    fitting = [i for i, thing in enumerate(things()) if thing.has(name) is True and thing.has(other) is False]
    return sorted(fitting, key=lambda thing: (asked[thing], source.random()))


def by_need(pairs: tuple[Pair, ...]) -> dict[int, tuple[list[int], list[int]]]:
    """Return need -> (right objects, wrong objects); the two lists are of equal length."""
    table: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for pair in pairs:
        table[pair.need][0 if pair.right else 1].append(pair.thing)
    return dict(table)
