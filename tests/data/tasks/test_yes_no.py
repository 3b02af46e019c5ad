from __future__ import annotations

import pytest

from smoa_lightning.data.tasks import BOOLQ, RowError

ROW = {"question": "is moss a plant", "passage": "Mosses are small plants.\nThey like shade.", "answer": True}


def test_prompt_is_that_of_the_evaluation_harness():
    example = BOOLQ.likelihood.example(BOOLQ.check(ROW))
    prompt = "Mosses are small plants.\nThey like shade.\nQuestion: is moss a plant?\nAnswer:"
    assert example.pairs == [(prompt, " no"), (prompt, " yes")]
    assert example.label == 1
    assert example.target == (prompt, " yes")
    assert example.num_bytes == [2, 3]
    assert BOOLQ.likelihood.example(BOOLQ.check({**ROW, "answer": False})).target == (prompt, " no")


def test_questions_about_one_passage_stay_together():
    other = {**ROW, "question": "is moss an animal", "passage": "mosses ARE small plants.  They like shade."}
    assert BOOLQ.group(ROW) == BOOLQ.group(other)
    assert BOOLQ.group(ROW) != BOOLQ.group({**ROW, "passage": "Ferns are plants."})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passage": " "}, "'passage' must not be empty"),
        ({"question": None}, r"'question' must be text, not missing \(null\)"),
        ({"answer": 1}, "'answer' must be true or false, not a whole number"),
        ({"answer": "true"}, "'answer' must be true or false, not text"),
        ({"answer": None}, r"'answer' must be true or false, not missing \(null\)"),
    ],
)
def test_bad_fields(change, message):
    with pytest.raises(RowError, match=message):
        BOOLQ.check({**ROW, **change})


def test_truth_values_in_a_text_table():
    field = BOOLQ.schema["answer"]
    assert [field.check(field.parse(text)) for text in ("true", " False", "TRUE")] == [1, 0, 1]
    with pytest.raises(RowError, match="must be true or false, not text"):
        field.check(field.parse("yes"))
