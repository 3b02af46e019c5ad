from __future__ import annotations

import pytest

from smoa_lightning.data.tasks import GSM8K, METAMATH_QA, RowError

from ..made_rows import ROWS

SUM = {
    "question": "Ana has 1,000 cups and buys 12 boxes of 6. How many?",
    "answer": "She buys 12*6 = <<12*6=72>>72 cups.\nSo 1000+72 = $<<1000+72=1072.0>>1,072.\n#### 1,072",
}
TERM = {
    "type": "MATH_AnsAug",
    "query": "Halve $x$.",
    "original_question": "What is half of $x$?",
    "response": "We divide.\n\nSo $x/2$.\nThe answer is: $\\dfrac{x}{2}$",
}


def test_gsm8k_prompt_is_that_of_the_evaluation_harness():
    example = GSM8K.generation.example(GSM8K.check(SUM))
    assert example.prompt == "Question: Ana has 1,000 cups and buys 12 boxes of 6. How many?\nAnswer:"
    assert example.response == " She buys 12*6 = 72 cups.\nSo 1000+72 = $1,072.\n#### 1,072"
    assert example.answer == "1072"
    assert GSM8K.protocols == (GSM8K.generation,)
    assert (GSM8K.generation.metric, GSM8K.generation.selection_metric) == ("acc", "nll")


def test_metamath_has_the_prompt_of_gsm8k_and_its_own_answer():
    example = METAMATH_QA.generation.example(METAMATH_QA.check(TERM))
    assert example.prompt == "Question: Halve $x$.\nAnswer:"
    assert example.response == " We divide.\n\nSo $x/2$.\nThe answer is: $\\dfrac{x}{2}$"
    assert example.answer == r"\frac{x}{2}"


def test_no_reply_is_right_if_the_row_has_no_answer():
    example = METAMATH_QA.generation.example(METAMATH_QA.check({**TERM, "response": "Well. The answer is: "}))
    assert example.answer == ""
    assert METAMATH_QA.generation.answer(example.response) is None


@pytest.mark.parametrize("task", [GSM8K, METAMATH_QA])
def test_every_gold_reply_is_read_as_its_answer(task):
    for row in ROWS[task.name]:
        example = task.generation.example(task.check(row))
        assert example.answer
        assert task.generation.answer(example.response) == example.answer
        assert "<<" not in example.response
        assert not any(stop in example.response for stop in task.generation.stop)


def test_a_reply_of_either_kind_is_right_in_gsm8k():
    assert GSM8K.generation.answer("Then 72 + 1,000.\nThe answer is: 1,072.00") == "1072"


def test_rephrasings_of_one_question_stay_together():
    other = {**TERM, "query": "How much is x by two?", "original_question": "what IS half of  $x$?"}
    rows = [METAMATH_QA.check(row) for row in (TERM, other)]
    assert METAMATH_QA.group(rows[0]) == METAMATH_QA.group(rows[1])
    alone = METAMATH_QA.check({name: TERM[name] for name in ("query", "response")})
    assert METAMATH_QA.group(alone) == "halve $x$."
    assert GSM8K.group(SUM) != GSM8K.group({**SUM, "question": "Why?"})


@pytest.mark.parametrize(
    ("task", "row", "change", "message"),
    [
        (GSM8K, SUM, {"question": " "}, "'question' must not be empty"),
        (GSM8K, SUM, {"answer": 72}, "'answer' must be text, not a whole number"),
        (GSM8K, SUM, {"answer": "So 72."}, "'answer' does not end in '####' and a number: 'So 72.'"),
        (GSM8K, SUM, {"answer": "So 72.\n#### many"}, "'answer' does not end in '####' and a number"),
        (METAMATH_QA, TERM, {"query": None}, r"'query' must be text, not missing \(null\)"),
        (METAMATH_QA, TERM, {"original_question": 1}, "'original_question' must be text, not a whole number"),
        (METAMATH_QA, TERM, {"response": "#### 5"}, "'response' does not say 'The answer is:': '#### 5'"),
    ],
)
def test_bad_fields(task, row, change, message):
    with pytest.raises(RowError, match=message):
        task.check({**row, **change})
