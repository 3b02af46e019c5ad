"""Rows in the layout of Commonsense-170K (LLM-Adapters, arXiv 2304.01933), made of the other data sets' rows.

Each row words a question of another data set as an instruction and names the right choice. Every place holds the right
choice equally often. Facts without a passage (BoolQ's layout) ask of an object a property that it has and one that it
lacks. A row has the split of the row that its question comes from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from tools.embedded import activities, boolq, piqa, science, social, winogrande
from tools.embedded.cliques import cliques
from tools.embedded.world import things

Asked = tuple[str, str]  # instruction, answer
EACH = {"train": 200, "validation": 30, "test": 30}  # rows of each layout


def _lettered(words: str, texts: list[str], gap: str) -> tuple[str, str]:
    """Return the numbered choices and the answer format."""
    name = words.lower()
    choices = gap.join(f"{words}{i}: {text}" for i, text in enumerate(texts, start=1))
    return choices, "/".join(f"{name}{i}" for i in range(1, len(texts) + 1))


def solution_text(goal: str, texts: list[str]) -> str:
    """Return the instruction of PIQA's layout."""
    choices, form = _lettered("Solution", texts, "\n\n")
    return f"Please choose the correct solution to the question: {goal}\n\n{choices}\n\nAnswer format: {form}"


def answer_text(question: str, texts: list[str]) -> str:
    """Return the instruction of the layout of ARC, OpenBookQA and SIQA."""
    choices, form = _lettered("Answer", texts, " ")
    return f"Please choose the correct answer to the question: {question}\n\n{choices}\n\nAnswer format: {form}"


def option_text(sentence: str, texts: list[str]) -> str:
    """Return the instruction of WinoGrande's layout."""
    choices, form = _lettered("Option", texts, " ")
    begin = "Please choose the correct answer to fill in the blank to complete the given sentence"
    return f"{begin}: {sentence}\n\n{choices} Answer format: {form}"


def ending_text(context: str, texts: list[str]) -> str:
    """Return the instruction of HellaSwag's layout."""
    choices, form = _lettered("Ending", texts, " ")
    begin = "Please choose the correct ending to complete the given sentence"
    return f"{begin}: {context}\n\n{choices}\n\nAnswer format: {form}"


def truth_text(question: str) -> str:
    """Return the instruction of BoolQ's layout."""
    return (
        f"Please answer the following question with true or false, question: {question}?\n\nAnswer format: true/false"
    )


def _solutions(split: str) -> Iterator[Asked]:
    for row in piqa.rows(split):
        yield solution_text(row["goal"], [row["sol1"], row["sol2"]]), f"solution{row['label'] + 1}"


def _science(make: Callable[[str], list[dict[str, Any]]], key: str) -> Callable[[str], Iterator[Asked]]:
    def asked(split: str) -> Iterator[Asked]:
        for row in make(split):
            place = row["choices"]["label"].index(row["answerKey"])
            yield answer_text(row[key], row["choices"]["text"]), f"answer{place + 1}"

    return asked


def _social(split: str) -> Iterator[Asked]:
    for row in social.rows(split):
        texts = [row["answerA"], row["answerB"], row["answerC"]]
        yield answer_text(f"{row['context']} {row['question']}", texts), f"answer{row['label']}"


def _options(split: str) -> Iterator[Asked]:
    for row in winogrande.rows(split):
        yield option_text(row["sentence"], [row["option1"], row["option2"]]), f"option{row['answer']}"


def _endings(split: str) -> Iterator[Asked]:
    for row in activities.rows(split):
        yield ending_text(f"{row['activity_label']}: {row['ctx']}", row["endings"]), f"ending{int(row['label']) + 1}"


def _truths(split: str) -> Iterator[Asked]:
    """Ask of each object of a clique for its own property, and of the next one for the same: yes and no in turn."""
    source = random.Random(f"truths {split}")
    for clique in cliques(science.MIXED, "arc_easy")[split]:
        for members in clique.tuples(3):
            for place, name in enumerate(clique.names):
                wording = source.randrange(2)
                for number, answer in ((place, "true"), ((place + 1) % len(members), "false")):
                    what = things()[members[number]].phrase
                    yield truth_text(boolq.question(name, wording, what)), answer


LAYOUTS: dict[str, Callable[[str], Iterator[Asked]]] = {
    "solution": _solutions,
    "science": _science(science.arc_easy_rows, "question"),
    "book": _science(science.openbookqa_rows, "question_stem"),
    "social": _social,
    "option": _options,
    "ending": _endings,
    "truth": _truths,
}


@cache
def asked(split: str) -> tuple[Asked, ...]:
    """Return instructions and answers of a split, as many of each layout and of each of a layout's answers."""
    source = random.Random(f"commonsense_instruct {split}")
    chosen: list[Asked] = []
    for make in LAYOUTS.values():
        table: dict[str, list[Asked]] = {}
        for instruction, answer in dict.fromkeys(make(split)):
            table.setdefault(answer, []).append((instruction, answer))
        sides = [source.sample(side, len(side)) for _, side in sorted(table.items())]
        turns = [side[i] for i in range(max(map(len, sides))) for side in sides if i < len(side)]
        chosen += turns[: EACH[split]]
    source.shuffle(chosen)
    return tuple(chosen)


def rows(split: str) -> list[dict[str, Any]]:
    """Return ``{"instruction", "input", "output", "answer"}`` as LLM-Adapters writes them; always the same."""
    return [
        {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}
        for instruction, answer in asked(split)
    ]


def choice_rows(split: str) -> list[dict[str, Any]]:
    """Return generic choices ``{"prompt": str, "choices": [str], "label": int}``: those of OpenBookQA."""
    found = []
    for row in science.openbookqa_rows(split):
        texts, labels = row["choices"]["text"], row["choices"]["label"]
        found.append({"prompt": row["question_stem"], "choices": texts, "label": labels.index(row["answerKey"])})
    return found


def instruction_rows(split: str) -> list[dict[str, Any]]:
    """Return generic instructions ``{"instruction", "input", "output": str}``: how does an activity go on?"""
    found = []
    for row in activities.rows(split):
        ending = row["endings"][int(row["label"])]
        found.append(
            {"instruction": "Tell what happens next.", "input": row["ctx"], "output": f"{row['ctx_b']} {ending}"}
        )
    return found
