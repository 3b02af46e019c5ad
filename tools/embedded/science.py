"""Rows of school science in the Hub schemas of ARC-Easy, ARC-Challenge and OpenBookQA, generated from the world.

ARC-Easy asks for one fact: which object has a property, or which property an object has. ARC-Challenge and OpenBookQA
need two facts: an object's property, and the property that a deed needs. ARC-Challenge goes from the object to the
deed, OpenBookQA from the deed to the object. Validation and test ask about (object, property) and (object, deed) pairs
that train never shows, neither as right nor as wrong choices; see ``cliques``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

from tools.embedded.cliques import Clique, cliques
from tools.embedded.uses import book_uses, challenge_uses
from tools.embedded.wording import sentence
from tools.embedded.world import PEOPLE, Thing, properties, things

MIXED = (5, 4, 4, 4, 3, 3, 3)  # ARC offers three to five choices
FOURS = (4,) * 6
# how often each object of a split is asked about
ROUNDS = {
    "arc_easy": {"train": 3, "validation": 2, "test": 2},
    "arc_challenge": {"train": 4, "validation": 3, "test": 3},
    "openbookqa": {"train": 4, "validation": 3, "test": 3},
}

WHICH_THING = ("Which of these {what}?", "Which thing {what}?", "What {what}?", "Find the thing that {what}.")
WHICH_PROPERTY = (
    "What is true of {phrase}?",
    "What can be said of {phrase}?",
    "Which sentence is about {phrase}?",
    "{who} looks at {phrase}. What is true of it?",
)
WHICH_DEED = (
    "{who} has {phrase}. What can {who} do with it?",
    "What is {phrase} good for?",
    "{who} found {phrase}. It can help to",
    "What can be done with {phrase}?",
)
STEMS = (
    "If you want to {deed}, you can use",
    "To {deed}, people use",
    "{who} wants to {deed}. {who} should take",
    "A thing to {deed} is",
    "What helps to {deed} is",
)

#: (source, clique, objects, place of the right one) -> questions with their choices
Ask = Callable[[random.Random, Clique, list[Thing], int], list[tuple[str, list[str]]]]


def _choices(texts: list[str], right: int, number: int) -> tuple[dict[str, list[str]], str]:
    """Return the choices, rotated so that every place is right equally often, and the label of the right one.

    One row in seven has digits for labels, as in ARC.
    """
    turn = (number - right) % len(texts)
    labels = list("12345" if number % 7 == 3 else "ABCDE")[: len(texts)]
    turned = texts[-turn:] + texts[:-turn] if turn else list(texts)
    return {"text": turned, "label": labels}, labels[(right + turn) % len(texts)]


def drawn(name: str, split: str, rounds: int, seed: str) -> list[tuple[str, list[str], int]]:
    """Ask about each place of each tuple: (question, choices, position of the right one), in random order."""
    source = random.Random(f"{name} {seed}")
    sizes, ask = KINDS[name]
    asked = []
    for clique in cliques(sizes, name)[split]:
        for members in clique.tuples(rounds):
            objects = [things()[number] for number in members]
            for place in range(len(members)):
                for question, texts in ask(source, clique, objects, place):
                    order = source.sample(range(len(texts)), len(texts))
                    asked.append((question, [texts[i] for i in order], order.index(place)))
    source.shuffle(asked)
    return asked


def _easy(source: random.Random, clique: Clique, objects: list[Thing], place: int) -> list[tuple[str, list[str]]]:
    wording = source.randrange(2)
    texts = [properties()[name].wordings[wording][0] for name in clique.names]
    one = source.choice(WHICH_THING).format(what=texts[place])
    two = source.choice(WHICH_PROPERTY).format(phrase=objects[place].phrase, who=source.choice(PEOPLE))
    return [(one, [thing.phrase for thing in objects]), (two, [sentence(f"it {text}") for text in texts])]


def _challenge(source: random.Random, clique: Clique, objects: list[Thing], place: int) -> list[tuple[str, list[str]]]:
    question = source.choice(WHICH_DEED).format(phrase=objects[place].phrase, who=source.choice(PEOPLE))
    return [(sentence(question), [challenge_uses()[name].deed for name in clique.names])]


def _book(source: random.Random, clique: Clique, objects: list[Thing], place: int) -> list[tuple[str, list[str]]]:
    stem = source.choice(STEMS).format(deed=book_uses()[clique.names[place]].deed, who=source.choice(PEOPLE))
    return [(stem, [thing.phrase for thing in objects])]


KINDS: dict[str, tuple[tuple[int, ...], Ask]] = {
    "arc_easy": (MIXED, _easy),
    "arc_challenge": (MIXED, _challenge),
    "openbookqa": (FOURS, _book),
}


@cache
def _all(name: str, split: str) -> tuple[dict[str, Any], ...]:
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    for question, texts, right in drawn(name, split, ROUNDS[name][split], split):
        if (question, frozenset(texts)) not in seen:
            seen.add((question, frozenset(texts)))
            number = len(rows)
            choices, key = _choices(texts, right, number)
            rows.append({"id": f"{name}-{split}-{number}", "question": question, "choices": choices, "answerKey": key})
    return tuple(rows)


def _copies(name: str, split: str) -> list[dict[str, Any]]:
    return [
        {**row, "choices": {key: list(values) for key, values in row["choices"].items()}} for row in _all(name, split)
    ]


def arc_easy_rows(split: str) -> list[dict[str, Any]]:
    """Return ``{"id", "question", "choices": {"text": [str], "label": [str]}, "answerKey": str}``; always the same."""
    return _copies("arc_easy", split)


def arc_challenge_rows(split: str) -> list[dict[str, Any]]:
    """Return rows in the schema of ``arc_easy_rows`` that take two steps; always the same."""
    return _copies("arc_challenge", split)


def openbookqa_rows(split: str) -> list[dict[str, Any]]:
    """Return ``{"id", "question_stem", "choices", "answerKey"}`` with four choices; always the same."""
    rows = _copies("openbookqa", split)
    return [{"question_stem" if key == "question" else key: value for key, value in row.items()} for row in rows]
