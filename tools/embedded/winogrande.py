"""Rows of twin sentences in WinoGrande's Hub schema, generated from the pairs that PIQA asks about.

Both options of a row are objects, each right for one of two coupled needs and wrong for the other one. The twin of a
sentence names the other need, so the other option is right. Pairs of objects and needs have the same split as in PIQA.
So no other data set and no text of the corpus shows what validation and test ask.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from tools.embedded.pairs import by_need, decoys, split_pairs
from tools.embedded.wording import sentence
from tools.embedded.world import PEOPLE, PLACES, needs, things

# twins drawn for each couple of needs; there are 39 couples
TWINS = {"train": 16, "validation": 3, "test": 3}
FRAMES: tuple[str, ...] = (
    "{who} had {one} and {two}. {who} took the _ to {deed}.",
    "{one} and {two} lay {where}. {who} chose the _ to {deed}.",
    "{who} found {one} and {two} {where} and needed the _ to {deed}.",
    "{who} saw {one} and {two}, and then the _ was used to {deed}.",
)


@cache
def drawn(split: str, twins: int, seed: str) -> tuple[tuple[str, str, str, int], ...]:
    """Draw (sentence, option, option, position of the right one), ``twins`` twins for each couple of needs."""
    source = random.Random(f"winogrande {seed}")
    table = by_need(split_pairs()[split])
    found: list[tuple[str, str, str, int]] = []
    for first, second in decoys():
        if first not in table:
            continue
        rights, wrongs = table[first]
        couples = [(one, two) for one in rights for two in wrongs]
        source.shuffle(couples)
        for turn, (one, two) in enumerate(couples[:twins]):
            names = [things()[one], things()[two]]
            order = [0, 1] if turn % 2 == 0 else [1, 0]
            fill = {
                "who": source.choice(PEOPLE),
                "where": source.choice(PLACES),
                **{key: names[i].phrase for key, i in zip(("one", "two"), order, strict=True)},
            }
            frame = source.choice(FRAMES)
            for right, need in enumerate((first, second)):
                text = sentence(frame.format(deed=needs()[need].deed, **fill))
                found.append((text, names[order[0]].name, names[order[1]].name, order.index(right)))
    source.shuffle(found)
    # the options of every second row change places; the text names some of them in another order already
    return tuple(
        (text, one, two, right) if i % 2 == 0 else (text, two, one, 1 - right)
        for i, (text, one, two, right) in enumerate(found)
    )


def rows(split: str) -> list[dict[str, Any]]:
    """Return the rows of a split, ``{"sentence", "option1", "option2": str, "answer": "1" | "2"}``; always the same."""
    return [
        {"sentence": text, "option1": one, "option2": two, "answer": str(right + 1)}
        for text, one, two, right in drawn(split, TWINS[split], split)
    ]
