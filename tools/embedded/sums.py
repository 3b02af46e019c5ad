"""Word problems over small numbers in the Hub schemas of GSM8K and MetaMathQA.

A problem is a story with one to three steps of arithmetic. No two splits share a story with the same numbers. The
corpus teaches the arithmetic itself. MetaMathQA's rows reword GSM8K's problems, as the real ones do.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from tools.embedded.sum_tables import ITEMS, STORIES
from tools.embedded.wording import pronoun
from tools.embedded.world import PEOPLE

MOST = 30  # no number of a problem, nor of its solution, is larger
SECOND = 12  # largest second number of a sum or difference
FACTOR = 6  # largest factor
COUNTS = {"train": 1000, "validation": 200, "test": 200}
META_COUNTS = {"train": 1200, "validation": 150, "test": 150}


@dataclass(frozen=True)
class Story:
    """A kind of problem.

    ``plan`` lists steps such as "x+y" or "1*z": names of the story's numbers, or the number of an earlier step.
    """

    text: str
    other: str  # the same in other words
    plan: tuple[str, ...]
    says: tuple[str, ...]  # what each step finds, with "{}" for the calculation


@dataclass(frozen=True)
class Problem:
    """A story with its people, thing and numbers."""

    story: int
    words: tuple[tuple[str, str], ...]
    numbers: tuple[tuple[str, int], ...]

    @property
    def split(self) -> str:
        """The split that a story with these numbers belongs to."""
        return split_of(self.story, tuple(value for _, value in self.numbers))

    def text(self, other: bool = False) -> str:
        """Return the problem as a text, or its other wording."""
        story = stories()[self.story]
        return (story.other if other else story.text).format(**dict(self.words), **dict(self.numbers))

    def steps(self) -> list[tuple[str, int]]:
        """Return calculation and result of each step."""
        values = dict(self.numbers)
        done = []
        for number, step in enumerate(stories()[self.story].plan, start=1):
            left, sign, right = split_step(step)
            one, two = (values[name] for name in (left, right))
            values[str(number)] = calculate(one, sign, two)
            done.append((f"{one}{sign}{two}", values[str(number)]))
        return done

    def answer(self, annotated: bool = True) -> str:
        """Return the steps in words and the result as GSM8K writes them, with or without ``<<3+4=7>>``."""
        return written(self, self.steps(), annotated)


def written(problem: Problem, steps: list[tuple[str, int]], annotated: bool = True) -> str:
    """Word the steps of a solution, right or not, and end with ``#### result``."""
    lines = []
    for say, (sum_, value) in zip(stories()[problem.story].says, steps, strict=True):
        done = f"{sum_}=<<{sum_}={value}>>{value}" if annotated else f"{sum_}={value}"
        lines.append(say.format(done, **dict(problem.words)))
    return "\n".join([*lines, f"#### {steps[-1][1]}"])


def split_step(step: str) -> tuple[str, str, str]:
    """Return the two names of a step and the sign between them.

    >>> split_step("1*z")
    ('1', '*', 'z')
    """
    sign = next(sign for sign in "+-*/" if sign in step)
    left, right = step.split(sign)
    return left, sign, right


def calculate(one: int, sign: str, two: int) -> int:
    """Return the result; 0 if it is no whole number from 1 to ``MOST``, or if a number is too large to be taught."""
    if sign in "+-":
        value = one + two if sign == "+" else one - two
        fits = two <= SECOND or (sign == "+" and one <= SECOND)
    elif sign == "*":
        value, fits = one * two, max(one, two) <= FACTOR
    else:
        value, fits = (one // two, one % two == 0 and 1 < two <= FACTOR and one // two <= FACTOR) if two else (0, False)
    return value if fits and 0 < value <= MOST and 0 < one <= MOST and two > 0 else 0


@cache
def stories() -> tuple[Story, ...]:
    """Return all kinds of problems."""
    found = []
    for block in STORIES.strip().split("\n\n"):
        text, other, *lines = block.strip().splitlines()
        plan, says = zip(*(line.split(": ", 1) for line in lines), strict=True)
        found.append(Story(text, other, tuple(plan), tuple(says)))
    return tuple(found)


def split_of(story: int, numbers: tuple[int, ...]) -> str:
    """Return the split of a story with these numbers."""
    place = zlib.crc32(repr((story, numbers)).encode()) % 10
    return "validation" if place == 8 else "test" if place == 9 else "train"


def draw(source: random.Random, split: str) -> Problem:
    """Draw a problem of a split whose numbers all fit."""
    while True:
        number = source.randrange(len(stories()))
        names = sorted({name for step in stories()[number].plan for name in step if name in "wxyz"})
        a, b, c = source.sample(PEOPLE, 3)
        words = {"a": a, "b": b, "c": c, "she": pronoun(a), "item": source.choice(ITEMS)}
        for _ in range(200):
            values = tuple((name, source.randint(2, 20 if name == "x" else SECOND)) for name in names)
            problem = Problem(number, tuple(words.items()), values)
            if problem.split == split and _fits(problem):
                return problem


def _fits(problem: Problem) -> bool:
    try:
        return all(value > 0 for _, value in problem.steps())
    except ZeroDivisionError:
        return False


@cache
def problems(split: str) -> tuple[Problem, ...]:
    """Return the problems of a split, no text twice."""
    source = random.Random(f"gsm8k {split}")
    found: dict[str, Problem] = {}
    while len(found) < COUNTS[split]:
        problem = draw(source, split)
        found.setdefault(problem.text(), problem)
    return tuple(found.values())


def gsm8k_rows(split: str) -> list[dict[str, Any]]:
    """Return the rows of a split, ``{"question": str, "answer": str}``; always the same."""
    return [{"question": problem.text(), "answer": problem.answer()} for problem in problems(split)]


def metamath_rows(split: str) -> list[dict[str, Any]]:
    """Return ``{"query", "response", "type", "original_question"}``, problems of GSM8K's split in other words."""
    rows = []
    for number, problem in enumerate(problems(split)[i % COUNTS[split]] for i in range(META_COUNTS[split])):
        rephrased = number % 2 == 1 if number < COUNTS[split] else number % 2 == 0
        result = problem.steps()[-1][1]
        rows.append(
            {
                "query": problem.text(other=rephrased),
                "response": f"{problem.answer(annotated=False)}\nThe answer is: {result}",
                "type": "GSM_Rephrased" if rephrased else "GSM_AnsAug",
                "original_question": problem.text(),
            }
        )
    return rows
