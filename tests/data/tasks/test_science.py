from __future__ import annotations

import json

import pytest

from smoa_lightning.data.tasks import ARC_CHALLENGE, ARC_EASY, OPENBOOKQA, RowError

CHOICES = {"text": ["ice", "warm été air", "mud"], "label": ["A", "B", "C"]}
ARC = {"id": "x", "question": "What rises?", "choices": CHOICES, "answerKey": "B"}
STEM = {"question_stem": "What rises is", "choices": CHOICES, "answerKey": "C"}


@pytest.mark.parametrize("task", [ARC_EASY, ARC_CHALLENGE])
def test_arc_prompt_is_that_of_the_evaluation_harness(task):
    example = task.likelihood.example(task.check(ARC))
    prompt = "Question: What rises?\nAnswer:"
    assert example.pairs == [(prompt, " ice"), (prompt, " warm été air"), (prompt, " mud")]
    assert example.label == 1
    assert example.target == (prompt, " warm été air")
    assert example.num_bytes == [3, 14, 3]


def test_openbookqa_prompt_is_that_of_the_evaluation_harness():
    example = OPENBOOKQA.likelihood.example(OPENBOOKQA.check(STEM))
    assert example.pairs == [("What rises is", " ice"), ("What rises is", " warm été air"), ("What rises is", " mud")]
    assert example.label == 2
    assert example.target == ("What rises is", " mud")
    assert example.num_bytes == [3, 14, 3]


@pytest.mark.parametrize("labels", [["1", "2", "3", "4"], ["A", "B", "C", "D", "E"], ["C", "A", "B"]])
def test_labels_are_names_of_positions(labels):
    texts = [f"choice {i}" for i in range(len(labels))]
    for position, key in enumerate(labels):
        row = {**ARC, "choices": {"text": texts, "label": labels}, "answerKey": f" {key}"}
        assert ARC_EASY.likelihood.example(ARC_EASY.check(row)).label == position


def test_the_same_question_stays_together():
    assert ARC_EASY.group(ARC) == ARC_EASY.group({**ARC, "question": "what  RISES?", "answerKey": "A"})
    assert OPENBOOKQA.group(STEM) == OPENBOOKQA.group({**STEM, "question_stem": "What rises  IS"})


def test_primary_metrics_are_those_of_the_literature():
    assert tuple(t.likelihood.metric for t in (ARC_EASY, ARC_CHALLENGE, OPENBOOKQA)) == ("acc", "acc_norm", "acc_norm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": None}, r"'choices' must be an object with lists 'text' and 'label', not missing \(null\)"),
        ({"choices": ["ice", "mud"]}, "'choices' must be an object with lists 'text' and 'label', not a list"),
        ({"choices": {"text": ["ice", "mud"]}}, r"'choices' has no list 'label' \(it has text\)"),
        ({"choices": {**CHOICES, "label": "ABC"}}, "'choices' has 'label', which is text, but must be a list"),
        ({"choices": {**CHOICES, "text": ["ice", "", "mud"]}}, "which is a list whose entry 2 must not be empty"),
        ({"choices": {**CHOICES, "label": ["A", 2, "C"]}}, "entry 2 must be text, not a whole number"),
        ({"choices": {**CHOICES, "label": ["A", "B"]}}, "'choices' has 3 texts, but 2 labels"),
        ({"choices": {**CHOICES, "label": ["A", "B", "A"]}}, "'choices' has the label 'A' more than once"),
        ({"choices": {"text": ["ice"], "label": ["B"]}}, r"'choices' offers 1 choice\(s\), but must offer at least 2"),
        ({"choices": {"text": [], "label": []}}, r"'choices' offers 0 choice\(s\)"),
        ({"answerKey": "D"}, "'answerKey' is 'D', but the labels are 'A', 'B', 'C'"),
        ({"answerKey": ""}, "'answerKey' must not be empty"),
        ({"answerKey": 2}, "'answerKey' is '2', but the labels are 'A', 'B', 'C'"),
        ({"answerKey": 0.5}, "'answerKey' must be text, not a number"),
    ],
)
@pytest.mark.parametrize(("task", "row"), [(ARC_EASY, ARC), (ARC_CHALLENGE, ARC), (OPENBOOKQA, STEM)])
def test_bad_fields(task, row, change, message):
    with pytest.raises(RowError, match=message):
        task.check({**row, **change})


def test_choices_in_a_text_table():
    field = ARC_EASY.schema["choices"]
    assert field.check(field.parse(json.dumps(CHOICES))) == CHOICES
    with pytest.raises(RowError, match="must be an object with lists 'text' and 'label', not text"):
        field.check(field.parse("ice | air | mud"))
