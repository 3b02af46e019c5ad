"""Everyday talk of two people in the layout of DailyDialog: turns with dialogue acts and emotions.

Acts are 1 inform, 2 question, 3 directive, 4 commissive; emotions 0 none, 4 happiness, 5 sadness, 6 surprise. Each
dialogue draws two values, for example what is asked for and where. No pair of values of a script occurs in two splits.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from tools.embedded.everyday_tables import SCRIPTS

COUNTS = {"train": 240, "validation": 50, "test": 50}


@dataclass(frozen=True)
class Turn:
    """What somebody says, in one or several wordings, with its act and emotion."""

    wordings: tuple[str, ...]
    act: int
    emotion: int


@dataclass(frozen=True)
class Script:
    """The turns of a kind of dialogue and what its two slots may hold."""

    name: str
    first: tuple[tuple[str, str], ...]  # value of {one}, and {kind}, what goes with it
    second: tuple[str, ...]
    turns: tuple[Turn, ...]


@cache
def scripts() -> tuple[Script, ...]:
    """Return all kinds of dialogues."""
    found = []
    for name, text in SCRIPTS.items():
        first, second, *lines = text.strip().splitlines()
        couples = [value.strip().split("=") for value in first.split(",")]
        turns = []
        for line in lines:
            marks, _, words = line.strip().partition(" ")
            turns.append(Turn(tuple(words.split(" / ")), int(marks[0]), int(marks[1])))
        found.append(
            Script(
                name,
                tuple((one, kind) for one, kind in couples),
                tuple(value.strip() for value in second.split(",")),
                tuple(turns),
            )
        )
    return tuple(found)


def split_of(script: str, one: str, two: str) -> str:
    """Return the split in which two values of a script occur together."""
    place = zlib.crc32(f"{script}/{one}/{two}".encode()) % 5
    return "train" if place < 3 else "validation" if place == 3 else "test"


def draw(source: random.Random, split: str) -> tuple[tuple[str, ...], tuple[Turn, ...]]:
    """Draw a dialogue of a split: what is said, and the turns it follows."""
    while True:
        script = source.choice(scripts())
        (one, kind), two = source.choice(script.first), source.choice(script.second)
        if split_of(script.name, one, two) == split:
            said = tuple(source.choice(turn.wordings).format(one=one, kind=kind, two=two) for turn in script.turns)
            return said, script.turns


@cache
def _rows(split: str) -> tuple[tuple[tuple[str, ...], tuple[Turn, ...]], ...]:
    source = random.Random(f"daily_dialog {split}")
    drawn: dict[tuple[str, ...], tuple[Turn, ...]] = {}
    while len(drawn) < COUNTS[split]:
        said, turns = draw(source, split)
        drawn[said] = turns
    return tuple(drawn.items())


def rows(split: str) -> list[dict[str, Any]]:
    """Return ``{"dialog": [str], "act": [int], "emotion": [int]}``; always the same."""
    return [
        {"dialog": list(said), "act": [turn.act for turn in turns], "emotion": [turn.emotion for turn in turns]}
        for said, turns in _rows(split)
    ]
