"""The prompts that the corpus shows are those of the tasks."""

from __future__ import annotations

import pytest

from smoa_lightning import embedded
from smoa_lightning.data.tasks import get_task
from tools.embedded.wording import ALPACA, conversation_text, pronoun

from .frequencies import read

PROMPTS = {
    "boolq": "{passage}\nQuestion: {question}?\nAnswer:",
    "piqa": "Question: {goal}\nAnswer:",
    "social_i_qa": "Q: {context} {question}\nA:",
    "arc_easy": "Question: {question}\nAnswer:",
    "arc_challenge": "Question: {question}\nAnswer:",
    "openbookqa": "{question_stem}",
}


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_prompts_of_choices(name):
    task = get_task(name)
    for row in embedded.rows(name, "test")[:20]:
        item = read(name, row)
        example = task.likelihood.example(task.check(row))
        expected = [(PROMPTS[name].format(**row), f" {choice}") for choice in item.choices]
        assert example.pairs == expected
        assert example.label == item.label


def test_prompts_of_hellaswag_and_winogrande():
    row = embedded.rows("hellaswag", "test")[0]
    task = get_task("hellaswag")
    who = row["ctx_b"].capitalize()
    expected = [(f"{row['activity_label']}: {row['ctx_a']} {who}", f" {ending}") for ending in row["endings"]]
    assert task.likelihood.example(task.check(row)).pairs == expected
    row = embedded.rows("winogrande", "test")[0]
    task = get_task("winogrande")
    before, after = row["sentence"].split("_")
    expected = [(before + row[key], after) for key in ("option1", "option2")]
    assert task.likelihood.example(task.check(row)).pairs == expected


def test_prompts_of_dialogues_and_instructions():
    row = embedded.rows("convai2", "test")[0]
    task = get_task("convai2")
    for part in task.expand(task.check(row)):
        example = task.generation.example(part)
        turns = [*part["history"], part["reply"]]
        assert example.prompt + example.response == conversation_text(turns, part["personality"])
    row = embedded.rows("commonsense_instruct", "test")[0]
    task = get_task("commonsense_instruct")
    example = task.generation.example(task.check(row))
    assert example.prompt == ALPACA.format(instruction=row["instruction"])
    assert example.response == row["output"]


def test_pronouns():
    assert [pronoun(name) for name in ("Anna", "Ben", "Tina", "Victor")] == ["she", "he", "she", "he"]
