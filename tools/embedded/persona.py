"""Chats of people with a persona, in the layout that ConvAI2 / PersonaChat has on the hub.

The partner asks about the topics of the persona, and the speaker ("self") answers with what the persona says. No pair
of values of two topics occurs in the personas of two splits.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from tools.embedded.persona_tables import BACK, FAREWELL, GREETINGS, PARTNER_REMARKS, TOPICS

COUNTS = {"train": 120, "validation": 40, "test": 40}


@dataclass(frozen=True)
class Topic:
    """A topic: its values, and how persona, partner and self speak about them."""

    values: tuple[str, ...]
    persona: str
    questions: tuple[str, ...]
    replies: tuple[str, ...]


@cache
def topics() -> dict[str, Topic]:
    """Return all topics by name."""
    table = {}
    for name, (values, text) in TOPICS.items():
        persona, questions, replies = (part.strip() for part in text.split(" | "))
        table[name] = Topic(
            tuple(values.split(", ")), persona, tuple(questions.split("; ")), tuple(replies.split("; "))
        )
    return table


def pair_split(one: tuple[str, str], two: tuple[str, str]) -> str:
    """Return the split in which two (topic, value) pairs occur together."""
    place = zlib.crc32(repr(sorted((one, two))).encode()) % 5
    return "train" if place < 3 else "validation" if place == 3 else "test"


def draw_persona(source: random.Random, split: str) -> list[tuple[str, str]]:
    """Draw three to five (topic, value) pairs, any two of which belong together in the split."""
    size = source.choice((3, 4, 5)) if split == "train" else source.choice((3, 3, 4))
    while True:
        chosen: list[tuple[str, str]] = []
        for name in source.sample(list(topics()), len(topics())):
            fitting = [
                (name, value)
                for value in topics()[name].values
                if all(pair_split((name, value), other) == split for other in chosen)
            ]
            if fitting:
                chosen.append(source.choice(fitting))
            if len(chosen) == size:
                return chosen


def chat(source: random.Random, persona: list[tuple[str, str]], spoken: list[tuple[str, str]]) -> list[str]:
    """Return the turns of a chat, the partner's first.

    ``spoken`` are the values that self names for the topics of ``persona``: the same ones, except in careless chats.
    """
    turns = list(source.choice(GREETINGS))
    for place, (name, value) in enumerate(spoken):
        topic = topics()[name]
        remark = source.choice(PARTNER_REMARKS) + " " if place else ""
        turns.append(remark + source.choice(topic.questions))
        turns.append(source.choice(topic.replies).format(v=value) + source.choice(BACK))
    if len(turns) < 2 * len(persona):
        turns += FAREWELL
    return turns


@cache
def _rows(split: str) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    source = random.Random(f"convai2 {split}")
    drawn: dict[frozenset[tuple[str, str]], tuple[tuple[str, ...], tuple[str, ...]]] = {}
    while len(drawn) < COUNTS[split]:
        persona = draw_persona(source, split)
        spoken = source.sample(persona, source.randint(2, min(4, len(persona))))
        told = tuple(topics()[name].persona.format(v=value) for name, value in persona)
        drawn.setdefault(frozenset(persona), (told, tuple(chat(source, persona, spoken))))
    return tuple(drawn.values())


def rows(split: str) -> list[dict[str, Any]]:
    """Return ``{"personality": [str], "dialog": [str]}``, partner and self in turn; always the same."""
    return [{"personality": list(persona), "dialog": list(turns)} for persona, turns in _rows(split)]
