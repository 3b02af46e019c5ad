from __future__ import annotations

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.tasks import PIQA, SOCIAL_I_QA, TASKS, ChoiceExample, RowError, get_task

ROW = {"goal": "Dry a cup", "sol1": "use a towel", "sol2": "use a sieve", "label": 1}


def test_piqa_prompt_is_that_of_the_evaluation_harness():
    example = PIQA.likelihood.example(ROW)
    assert example.pairs == [
        ("Question: Dry a cup\nAnswer:", " use a towel"),
        ("Question: Dry a cup\nAnswer:", " use a sieve"),
    ]
    assert example.target == ("Question: Dry a cup\nAnswer:", " use a sieve")
    assert example.num_bytes == [len("use a towel"), len("use a sieve")]


def test_bytes_are_counted_and_not_characters():
    assert ChoiceExample("q", (" é", "é", "  a"), 0).num_bytes == [2, 2, 2]


def test_prompts_may_differ_by_choice():
    example = ChoiceExample(("the cat", "the dog"), (" sleeps", " sleeps"), 1)
    assert example.pairs == [("the cat", " sleeps"), ("the dog", " sleeps")]
    assert example.target == ("the dog", " sleeps")


def test_groups_ignore_case_and_spaces():
    assert PIQA.group({"goal": "Dry  a CUP "}) == PIQA.group({"goal": "dry a cup"})


def test_other_fields_are_dropped():
    assert PIQA.check({**ROW, "id": 5}) == ROW


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goal": ""}, "'goal' must not be empty"),
        ({"sol1": " \n"}, "'sol1' must not be empty"),
        ({"sol2": 3}, "'sol2' must be text, not a whole number"),
        ({"sol2": None}, "'sol2' must be text, not missing"),
        ({"label": 2}, "'label' is 2, but must be one of 0, 1"),
        ({"label": -1}, "without a public label"),
        ({"label": True}, "'label' must be a whole number, not true/false"),
        ({"label": "one"}, "'label' must be a whole number, not text"),
        ({"label": 1.5}, "'label' must be a whole number, not a number"),
        ({"label": float("nan")}, r"'label' must be a whole number, not missing .NaN."),
    ],
)
def test_bad_fields(change, message):
    with pytest.raises(RowError, match=message):
        PIQA.check({**ROW, **change})


def test_missing_field_and_no_object():
    with pytest.raises(RowError, match=r"field 'label' is missing \(the row has goal, sol1, sol2\)"):
        PIQA.check({name: value for name, value in ROW.items() if name != "label"})
    with pytest.raises(RowError, match="must be an object with fields goal, sol1, sol2, label, not a list"):
        PIQA.check([1])


def test_registry():
    assert TASKS["piqa"] is get_task("piqa")
    with pytest.raises(UserError, match=r"unknown task 'pika'; did you mean piqa\?"):
        get_task("pika")


SITUATION = {
    "context": "Ann fell off her bike.",
    "question": "How would Ann feel?",
    "answerA": "glad",
    "answerB": "proud",
    "answerC": "hurt",
    "label": "3",
}


def test_social_i_qa_prompt_is_that_of_the_evaluation_harness():
    example = SOCIAL_I_QA.likelihood.example(SOCIAL_I_QA.check(SITUATION))
    prompt = "Q: Ann fell off her bike. How would Ann feel?\nA:"
    assert example.pairs == [(prompt, " glad"), (prompt, " proud"), (prompt, " hurt")]
    assert example.label == 2
    assert example.target == (prompt, " hurt")


def test_questions_about_one_situation_stay_together():
    other = {**SITUATION, "context": "ann fell  off her BIKE.", "question": "Why did Ann do this?"}
    assert SOCIAL_I_QA.group(SITUATION) == SOCIAL_I_QA.group(other)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("4", "'label' is '4', but must be one of '1', '2', '3'"),
        ("", "without a public label"),
        (0, "'label' is 0, but must be one of '1', '2', '3'"),
        (2.5, "'label' must be text, not a number"),
        (None, "'label' must be text, not missing"),
    ],
)
def test_bad_text_labels(label, message):
    with pytest.raises(RowError, match=message):
        SOCIAL_I_QA.check({**SITUATION, "label": label})
