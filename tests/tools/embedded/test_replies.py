"""The rows that are answered by writing: schemas, sizes, right sums, personas that are drawn upon; the generic rows."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from smoa_lightning import embedded
from smoa_lightning.data.tasks import TASKS, get_task
from tools.embedded import instruct, sums

FIELDS = {
    "gsm8k": ["question", "answer"],
    "metamath_qa": ["query", "response", "type", "original_question"],
    "convai2": ["personality", "dialog"],
    "daily_dialog": ["dialog", "act", "emotion"],
    "commonsense_instruct": ["instruction", "input", "output", "answer"],
    "choice": ["prompt", "choices", "label"],
    "instruction": ["instruction", "input", "output"],
    "chat": ["messages"],
}
LEAST = {"convai2": (120, 40), "daily_dialog": (240, 50), "chat": (160, 40)}  # dialogues hold several replies each


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_fields_and_sizes(name):
    for split in embedded.SPLITS:
        rows = embedded.rows(name, split)
        assert all(list(row) == FIELDS[name] for row in rows)
        least = LEAST.get(name, (400, 150))[split != "train"]
        assert least <= len(rows) <= 1500


@pytest.mark.parametrize("name", [name for name in FIELDS if name in TASKS])
@pytest.mark.parametrize("split", embedded.SPLITS)
def test_rows_are_in_the_schema_of_the_task(name, split):
    for row in embedded.rows(name, split):
        get_task(name).check(row)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_no_row_stands_twice(name):
    seen = [repr(row) for split in embedded.SPLITS for row in embedded.rows(name, split)]
    assert len(set(seen)) == len(seen)


def test_problems_are_calculated_rightly():
    for split in embedded.SPLITS:
        for row in embedded.rows("gsm8k", split):
            *steps, last = row["answer"].split("\n")
            assert 1 <= len(steps) <= 3
            for step in steps:
                written, annotated, said = re.search(r"(\d+[-+*/]\d+)=<<(\S+)>>(\d+)", step).groups()
                calculation, result = annotated.split("=")
                assert written == calculation
                # the text holds digits and one sign only, as the pattern above says
                assert eval(calculation) == int(result) == int(said)
                assert 0 < int(said) <= sums.MOST
            assert last == f"#### {said}"
            numbers = set(re.findall(r"\d+", row["question"]))
            assert numbers & set(re.findall(r"\d+", steps[0]))


def test_metamath_rewords_problems_of_the_same_split():
    for split in embedded.SPLITS:
        problems = {row["question"]: row["answer"].rpartition("#### ")[2] for row in embedded.rows("gsm8k", split)}
        kinds = Counter()
        for row in embedded.rows("metamath_qa", split):
            result = problems[row["original_question"]]
            assert row["response"].endswith(f"\n#### {result}\nThe answer is: {result}")
            assert (row["query"] == row["original_question"]) is (row["type"] == "GSM_AnsAug")
            assert sorted(re.findall(r"\d+", row["query"])) == sorted(re.findall(r"\d+", row["original_question"]))
            kinds[row["type"]] += 1
        assert abs(kinds["GSM_AnsAug"] - kinds["GSM_Rephrased"]) <= 1


def test_stories_have_all_kinds_of_steps():
    assert Counter(len(story.plan) for story in sums.stories()) == {1: 4, 2: 7, 3: 2}
    assert {sign for story in sums.stories() for step in story.plan for sign in step if sign in "+-*/"} == set("+-*/")


def test_personas_are_short_and_replies_draw_on_them():
    for split in embedded.SPLITS:
        for row in embedded.rows("convai2", split):
            assert 3 <= len(row["personality"]) <= 5
            assert len(row["dialog"]) % 2 == 0
            assert 6 <= len(row["dialog"]) <= 10
            text = " ".join(row["personality"] + row["dialog"])
            assert text == text.lower()
            told = set(" ".join(row["personality"]).split())
            named = [
                set(turn.split()) & told - {"i", "have", "two", "a", ".", "my", "is"} for turn in row["dialog"][3::2]
            ]
            assert sum(map(bool, named)) >= 2


def test_dialogues_have_an_act_and_an_emotion_a_turn():
    for split in embedded.SPLITS:
        for row in embedded.rows("daily_dialog", split):
            assert 4 <= len(row["dialog"]) <= 8
            assert len(row["dialog"]) == len(row["act"]) == len(row["emotion"])
            assert set(row["act"]) <= {1, 2, 3, 4}
            assert set(row["emotion"]) <= set(range(7))
            assert "{" not in "".join(row["dialog"])


def test_chats_alternate():
    for split in embedded.SPLITS:
        for row in embedded.rows("chat", split):
            roles = [message["role"] for message in row["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            assert all(message["content"] for message in row["messages"])


@pytest.mark.parametrize("split", embedded.SPLITS)
def test_instructions_mix_all_layouts_and_every_answer_is_right_equally_often(split):
    forms: dict[str, Counter] = {}
    for row in embedded.rows("commonsense_instruct", split):
        assert row["input"] == ""
        assert row["output"] == f"the correct answer is {row['answer']}"
        form = row["instruction"].rpartition("Answer format: ")[2]
        forms.setdefault(form, Counter())[row["answer"]] += 1
        for name in form.split("/"):
            if name not in ("true", "false"):
                assert f"{name.capitalize()}: " in row["instruction"]
    assert set(forms) >= {
        "true/false",
        "solution1/solution2",
        "option1/option2",
        "answer1/answer2/answer3",
        "answer1/answer2/answer3/answer4",
        "ending1/ending2/ending3/ending4",
    }
    for form, counts in forms.items():
        if form.startswith("answer"):
            continue  # three to five answers, balanced over all of them
        assert set(counts) == set(form.split("/"))
        assert max(counts.values()) - min(counts.values()) <= 1, (form, counts)


def test_wordings_of_the_instructions():
    assert instruct.solution_text("Dry a cup.", ["Use a towel.", "Use a stone."]) == (
        "Please choose the correct solution to the question: Dry a cup.\n\nSolution1: Use a towel.\n\n"
        "Solution2: Use a stone.\n\nAnswer format: solution1/solution2"
    )
    assert instruct.answer_text("What burns?", ["wood", "iron", "clay"]) == (
        "Please choose the correct answer to the question: What burns?\n\nAnswer1: wood Answer2: iron Answer3: clay\n\n"
        "Answer format: answer1/answer2/answer3"
    )
    assert instruct.option_text("The _ is wet.", ["mop", "sun"]) == (
        "Please choose the correct answer to fill in the blank to complete the given sentence: The _ is wet.\n\n"
        "Option1: mop Option2: sun Answer format: option1/option2"
    )
    assert instruct.truth_text("is honey sticky") == (
        "Please answer the following question with true or false, question: is honey sticky?\n\n"
        "Answer format: true/false"
    )
