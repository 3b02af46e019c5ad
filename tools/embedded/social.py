"""Rows about people in SIQA's Hub schema, generated from the social world.

A row tells an event and offers one answer for each of three kinds of deed. Every answer is offered with events of all
three kinds and is right for one of them. So no answer is more typical than another one. Validation and test ask for
(event, answer) pairs that train never shows, neither as right nor as wrong answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tools.embedded.social_tables import SOCIAL_QUESTIONS, TRIPLES
from tools.embedded.world import PEOPLE

ROUNDS = {"train": 2, "validation": 2, "test": 2}
SCENES = ("{event}.", "Last week {event}.", "{event} in the morning.", "On Monday {event}.")


@dataclass(frozen=True)
class Deed:
    """A kind of deed: its name with an article, the events of that kind, and the answers to each question."""

    name: str
    events: tuple[str, ...]
    answers: dict[str, tuple[str, ...]]


@cache
def triples() -> tuple[tuple[Deed, ...], ...]:
    """Return the kinds of deeds, in threes that are offered together."""
    return tuple(
        tuple(
            Deed(name, _parts(table["events"]), {key: _parts(table[key]) for key in SOCIAL_QUESTIONS})
            for name, table in triple.items()
        )
        for triple in TRIPLES
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(text.split("; "))


def split_of(event: int, question: int, answer: int) -> str:
    """Return the split of an event with an answer; all answers of a row have the same number."""
    return ("train", "train", "train", "train", "validation", "test")[(event + 2 * answer + question) % 6]


@dataclass(frozen=True)
class Scene:
    """An event with the question and the answers offered, of which ``right`` is the position of the right one."""

    context: str
    question: str
    answers: tuple[str, ...]
    right: int


def scene(source: random.Random, triple: tuple[Deed, ...], kind: int, event: int, key: str, answer: int) -> Scene:
    """Return the scene of an event, with people and order of the answers drawn from the source."""
    x, y = source.sample(PEOPLE, 2)
    told = source.choice(SCENES).format(event=triple[kind].events[event].format(x=x, y=y))
    offered = [deed.answers[key][answer].format(x=x, y=y) for deed in triple]
    order = source.sample(range(3), 3)
    return Scene(told, SOCIAL_QUESTIONS[key].format(x=x, y=y), tuple(offered[i] for i in order), order.index(kind))


def combinations(split: str) -> Iterator[tuple[tuple[Deed, ...], int, int, str, int]]:
    """Yield (three kinds, the one that happens, event, question, answer) of a split."""
    for triple in triples():
        for kind, deed in enumerate(triple):
            for event in range(len(deed.events)):
                for number, key in enumerate(SOCIAL_QUESTIONS):
                    for answer in range(len(deed.answers[key])):
                        if split_of(event, number, answer) == split:
                            yield triple, kind, event, key, answer


@cache
def _rows(split: str) -> tuple[Scene, ...]:
    source = random.Random(f"social_i_qa {split}")
    drawn = [scene(source, *combination) for combination in combinations(split) for _ in range(ROUNDS[split])]
    drawn = list({(one.context, one.question, frozenset(one.answers)): one for one in drawn}.values())
    source.shuffle(drawn)
    turned = []
    for number, one in enumerate(drawn):  # each place holds the right answer equally often
        answers, place = list(one.answers), number % 3
        answers[place], answers[one.right] = answers[one.right], answers[place]
        turned.append(Scene(one.context, one.question, tuple(answers), place))
    return tuple(turned)


def rows(split: str) -> list[dict[str, Any]]:
    """Return ``{"context", "question", "answerA", "answerB", "answerC", "label": "1" to "3"}``; always the same."""
    return [
        {
            "context": one.context,
            "question": one.question,
            **dict(zip(("answerA", "answerB", "answerC"), one.answers, strict=True)),
            "label": str(one.right + 1),
        }
        for one in _rows(split)
    ]
