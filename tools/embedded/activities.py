"""Rows of everyday activities in HellaSwag's Hub schema: how does it go on?

A row offers four endings, one of each of the four activities of a group. Each activity of a group is right in as many
rows. Validation and test ask for (beginning, ending) pairs that train never shows, neither as right nor as wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tools.embedded.activity_tables import GROUPS
from tools.embedded.wording import pronoun
from tools.embedded.world import PEOPLE

ROUNDS = {"train": 4, "validation": 2, "test": 2}
FRAMES = (
    "{who} {beginning}.",
    "{who} {beginning} and is in no hurry.",
    "First {who} {beginning}.",
    "Now {who} {beginning}.",
)


@dataclass(frozen=True)
class Activity:
    """An activity with four beginnings and four endings, verb phrases in the third person."""

    name: str
    beginnings: tuple[str, ...]
    endings: tuple[str, ...]


@cache
def groups() -> dict[str, tuple[Activity, ...]]:
    """Return the activities, four to a group, by the group's label."""
    table = {}
    for label, activities in GROUPS.items():
        found = []
        for name, text in activities.items():
            beginnings, endings = (tuple(part.strip().split("; ")) for part in text.split(" | "))
            found.append(Activity(name, beginnings, endings))
        table[label] = tuple(found)
    return table


def split_of(beginning: int, ending: int) -> str:
    """Return the split of a beginning with an ending; all endings of a row have the same number."""
    return ("train", "train", "validation", "test")[(beginning + ending) % 4]


def combinations(split: str) -> Iterator[tuple[str, int, int, int]]:
    """Yield (group, activity, beginning, ending) of a split, the last three by their numbers."""
    for label, activities in groups().items():
        for activity in range(len(activities)):
            for beginning in range(4):
                for ending in range(4):
                    if split_of(beginning, ending) == split:
                        yield label, activity, beginning, ending


@dataclass(frozen=True)
class Scene:
    """A beginning with the endings offered, of which ``right`` is the position of the right one."""

    label: str
    context: str
    who: str
    endings: tuple[str, ...]
    right: int


def scene(source: random.Random, label: str, activity: int, beginning: int, ending: int) -> Scene:
    """Return the scene of a combination, with person and order of the endings drawn from the source."""
    who = source.choice(PEOPLE)
    begun = groups()[label][activity].beginnings[beginning]
    order = source.sample(range(4), 4)
    endings = tuple(f"{groups()[label][i].endings[ending]}." for i in order)
    context = source.choice(FRAMES).format(who=who, beginning=begun)
    return Scene(label, context, pronoun(who), endings, order.index(activity))


@cache
def _rows(split: str) -> tuple[Scene, ...]:
    source = random.Random(f"hellaswag {split}")
    drawn = [scene(source, *combination) for combination in combinations(split) for _ in range(ROUNDS[split])]
    drawn = list({(one.context, frozenset(one.endings)): one for one in drawn}.values())
    source.shuffle(drawn)
    turned = []
    for number, one in enumerate(drawn):  # each place holds the right ending equally often
        endings, place = list(one.endings), number % 4
        endings[place], endings[one.right] = endings[one.right], endings[place]
        turned.append(Scene(one.label, one.context, one.who, tuple(endings), place))
    return tuple(turned)


def rows(split: str) -> list[dict[str, Any]]:
    """Return the rows of a split with the fields of HellaSwag, ``label`` as text "0" to "3"; always the same."""
    return [
        {
            "ind": number,
            "activity_label": one.label,
            "ctx_a": one.context,
            "ctx_b": one.who,
            "ctx": f"{one.context} {one.who}",
            "endings": list(one.endings),
            "source_id": f"world~{split}-{number}",
            "split": split,
            "split_type": "indomain",
            "label": str(one.right),
        }
        for number, one in enumerate(_rows(split))
    ]
