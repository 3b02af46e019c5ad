"""The layouts of original releases, and labels as pandas and NumPy write them: the same rows as those of the hub."""

from __future__ import annotations

import json

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.sources import Origin, load_split
from smoa_lightning.data.tasks import CHOICE, TASKS, CountError, RowError

CHOICES = {"text": ["ice", "mud"], "label": ["A", "B"]}
OBJECTS = [{"text": "ice", "label": "A"}, {"text": "mud", "label": "B"}]
SIQA = {"context": "Ann fell.", "question": "Why?", "answerA": "a", "answerB": "b", "answerC": "c"}
SCENE = {"activity_label": "Roof", "ctx_a": "A man", "ctx_b": "he", "endings": ["a", "b", "c", "d"], "source_id": "x"}
TWIN = {"sentence": "Ann feeds Eve, since _ is kind.", "option1": "Ann", "option2": "Eve"}
GOAL = {"goal": "Dry a cup", "sol1": "a towel", "sol2": "a sieve"}


@pytest.mark.parametrize(
    ("task", "hub", "original"),
    [
        ("hellaswag", {**SCENE, "label": "3"}, {**SCENE, "label": 3, "split": "val"}),
        ("arc_easy", {"question": "Q?", "choices": CHOICES, "answerKey": "B"},
         {"id": "M1", "question": {"stem": "Q?", "choices": OBJECTS}, "answerKey": "B"}),
        ("arc_challenge", {"question": "Q?", "choices": CHOICES, "answerKey": "A"},
         {"question": "Q?", "choices": OBJECTS, "answerKey": "A"}),
        ("openbookqa", {"question_stem": "Q", "choices": CHOICES, "answerKey": "A"},
         {"id": "7-1", "question": {"stem": "Q", "choices": OBJECTS}, "answerKey": "A"}),
        ("social_i_qa", {**SIQA, "label": "3"}, {**SIQA, "correct": "C"}),
        ("social_i_qa", {**SIQA, "label": "1"}, {**SIQA, "label": "1\n"}),
        ("social_i_qa", {**SIQA, "label": "2"}, {**SIQA, "label": 2}),
        ("winogrande", {**TWIN, "answer": "2"}, {**TWIN, "answer": 2.0}),
        ("piqa", {**GOAL, "label": 1}, {**GOAL, "label": "1\n"}),
        ("piqa", {**GOAL, "label": 0}, {**GOAL, "label": 0.0}),
        ("arc_easy", {"question": "Q?", "choices": {**CHOICES, "label": ["1", "2"]}, "answerKey": "2"},
         {"question": "Q?", "choices": {**CHOICES, "label": ["1", "2"]}, "answerKey": 2}),
    ],
)  # fmt: skip
def test_original_rows_are_those_of_the_hub(task, hub, original):
    assert TASKS[task].check(original) == TASKS[task].check(hub)


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("social_i_qa", {**SIQA, "correct": "D"}, "field 'correct' is 'D', but must be one of 'A', 'B', 'C'"),
        ("social_i_qa", SIQA, "field 'label' is missing"),
        ("arc_easy", {"question": {"choices": OBJECTS}, "answerKey": "A"}, "field 'question' must be text, not an obj"),
        ("openbookqa", {"question": {"stem": "Q"}, "answerKey": "A"}, "field 'choices' is missing"),
        ("arc_easy", {"question": "Q?", "choices": [{"text": "a"}, {"text": "b"}], "answerKey": "A"},
         "entry 1 must be text, not missing"),
    ],
)  # fmt: skip
def test_broken_original_rows(task, row, message):
    with pytest.raises(RowError, match=message):
        TASKS[task].check(row)


# ---- labels of pandas, labels from 1 on


def test_one_missing_label_in_a_table_of_pandas(tmp_path):
    """Then pandas writes all labels as fractions, in Parquet and in CSV."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {name: ["a", "b", "c"] for name in GOAL}
    pq.write_table(pa.table({**texts, "label": [0.0, 1.0, float("nan")]}), tmp_path / "train.parquet")
    rows, facts = load_split(TASKS["piqa"], "train", Origin("local", str(tmp_path)), bad_rows="skip")
    assert [row["label"] for row in rows] == [0, 1]
    assert facts.num_bad_rows == 1
    with pytest.raises(UserError, match=r"row 3: field 'label' must be a whole number, not missing \(NaN\)"):
        load_split(TASKS["piqa"], "train", Origin("local", str(tmp_path)))
    (tmp_path / "t.csv").write_text("goal,sol1,sol2,label\na,b,c,1.0\na,b,c,\n")
    rows, facts = load_split(TASKS["piqa"], "train", Origin("local", str(tmp_path / "t.csv")), bad_rows="skip")
    assert [row["label"] for row in rows] == [1]


@pytest.mark.parametrize("label", [1.0, "1.0", 1, "1"])
def test_a_label_of_choice_with_a_fraction(label):
    row = CHOICE.check({"prompt": "Hot?", "choices": ["ice", "fire"], "label": label})
    assert CHOICE.likelihood.example(row).label == 1
    named = CHOICE.check({"prompt": "Hot?", "choices": ["ice", "fire"], "labels": ["1", "2"], "label": label})
    assert CHOICE.likelihood.example(named).label == 0


def test_a_text_of_a_choice_that_looks_like_a_fraction():
    row = CHOICE.check({"prompt": "Half of 2?", "choices": ["2.0", "0.5", "1.0"], "label": "1.0"})
    assert CHOICE.likelihood.example(row).label == 2


def test_labels_from_one_on_are_never_left_out(tmp_path):
    """Without the rows that name the last choice, every other row would teach a wrong answer."""
    row = {"prompt": "Hot?", "choices": ["ice", "fire"]}
    with pytest.raises(CountError, match=r"count from 0 to 1 .*if the labels of your file count from 1, add a field"):
        CHOICE.check({**row, "label": 2})
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({**row, "label": n}) + "\n" for n in (1, 2)))
    with pytest.raises(UserError, match=r"row 2: field 'label' is 2.*add a field 'labels' such as \['1', '2'\]"):
        load_split(CHOICE, "train", Origin("local", str(tmp_path)), bad_rows="skip")
