"""Baselines that see the surface of a choice row alone; what they reach above chance is a shortcut."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A row as prompt, choices and position of the right one."""

    prompt: str
    choices: tuple[str, ...]
    label: int


def read(name: str, row: dict) -> Item:
    """Return the item of a row, by the field names of its task."""
    if name == "piqa":
        return Item(row["goal"], (row["sol1"], row["sol2"]), row["label"])
    if name == "boolq":
        return Item(f"{row['passage']} {row['question']}", ("no", "yes"), int(row["answer"]))
    if name == "social_i_qa":
        choices = tuple(row[f"answer{letter}"] for letter in "ABC")
        return Item(f"{row['context']} {row['question']}", choices, int(row["label"]) - 1)
    if name == "hellaswag":
        return Item(f"{row['activity_label']} {row['ctx']}", tuple(row["endings"]), int(row["label"]))
    if name == "winogrande":
        return Item(row["sentence"], (row["option1"], row["option2"]), int(row["answer"]) - 1)
    if name == "choice":
        return Item(row["prompt"], tuple(row["choices"]), row["label"])
    choices = row["choices"]
    question = row["question_stem"] if name == "openbookqa" else row["question"]
    return Item(question, tuple(choices["text"]), choices["label"].index(row["answerKey"]))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def accuracy(items: list[Item], score: Callable[[Item, int], float]) -> float:
    """Return the share of items whose right choice has the highest score; ties count in part."""
    hits = 0.0
    for item in items:
        scores = [score(item, place) for place in range(len(item.choices))]
        best = [place for place, value in enumerate(scores) if value == max(scores)]
        hits += (item.label in best) / len(best)
    return hits / len(items)


def chance(items: list[Item]) -> float:
    return sum(1 / len(item.choices) for item in items) / len(items)


def band(items: list[Item]) -> float:
    """Four standard errors of guessing."""
    return 4 * math.sqrt(chance(items) * (1 - chance(items)) / len(items))


def word_odds(items: list[Item], of: Callable[[Item, int], list[str]]) -> Callable[[Item, int], float]:
    """Return a score learned from items: summed log odds of what ``of`` sees of a choice being right."""
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for item in items:
        for place in range(len(item.choices)):
            (right if place == item.label else wrong).update(of(item, place))
    share = sum(right.values()) / max(sum(wrong.values()), 1)
    odds = {word: math.log((right[word] + share) / (wrong[word] * share + share)) for word in right | wrong}
    return lambda item, place: sum(odds.get(word, 0.0) for word in of(item, place))
