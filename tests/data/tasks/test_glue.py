"""The tasks of GLUE: rows in the Hub's schema, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.tasks import GLUE, Regression, RowError, get_task
from smoa_lightning.data.tasks.label_fields import ClassLabel
from smoa_lightning.embedded import rows


@pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)
def test_embedded_rows_fit_the_schema_and_the_splits_share_no_text(task: Any) -> None:
    seen: set[tuple[str, ...]] = set()
    for split in ("train", "validation", "test"):
        checked = [task.check(row) for row in rows(task.name, split)]
        labels = {row["label"] for row in checked}
        assert len(labels) == len(task.protocol().names) or isinstance(task.protocol(), Regression)
        examples = [task.protocol().example(row) for row in checked]
        texts = {example.texts for example in examples}
        assert len(texts) == len(checked)
        assert not texts & seen
        assert all(not task.unread(row) for row in rows(task.name, split))
        seen |= texts


def test_a_class_may_be_a_number_or_a_name() -> None:
    row = {"sentence1": "It rains.", "sentence2": "It is wet."}
    rte = get_task("rte")
    labels = (0, "1", "not_entailment", 1.0)
    assert [rte.check({**row, "label": label})["label"] for label in labels] == [0, 1, 1, 1]
    assert rte.protocol().example(rte.check({**row, "label": 0})).texts == ("It rains.", "It is wet.")


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        ("rte", 2, r"field 'label' is 2, but must be one of 0 \(entailment\), 1 \(not_entailment\)"),
        ("rte", -1, "-1 marks a row without a public label"),
        ("rte", "maybe", "field 'label' is 'maybe', but must be one of 0"),
        ("rte", None, r"field 'label' is missing \(null\), but must be one of 0"),
        ("stsb", "high", "field 'label' must be a number from 0 to 5, not text"),
        ("stsb", 7.5, r"field 'label' is 7\.5, but must be a number from 0 to 5"),
        ("stsb", float("nan"), "field 'label' is nan, but must be a number"),
        ("stsb", True, "field 'label' must be a number from 0 to 5, not true/false"),
    ],
)
def test_other_labels_are_refused(task: str, label: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        get_task(task).check({"sentence1": "a", "sentence2": "b", "label": label})


def test_names_that_are_numbers_are_names_in_every_format() -> None:
    stars = ClassLabel(("1", "2", "3"))
    assert [stars.check(value) for value in (1, "1", 1.0, 3, "3")] == [0, 0, 0, 2, 2]
    for value in (0, "0", 4):
        with pytest.raises(RowError, match="must be one of 1, 2, 3"):
            stars.check(value)
    digits = ClassLabel(tuple("0123"))
    assert [digits.check(value) for value in (0, "3")] == [0, 3]


def test_labels_that_count_from_one_are_an_error_even_if_bad_rows_are_left_out(tmp_path: Path) -> None:
    """Left out, the last class would be gone, and all others would have the name of the one before."""
    write(tmp_path, [1, 2, 1, 2])
    data = TaskDataModule("cola", "local", path=str(tmp_path), bad_rows="skip")
    with pytest.raises(UserError, match=r"is 2, but must be one of 0 \(unac.*; labels that count from 1 need"):
        data.rows("train")


GLUE_LINES = ['"It is good , but', "a plain text", 'the end ."', '"whole"', 'a "word" in it', '"a" and "b"']


def test_quotes_of_a_table_with_tabs_join_no_lines(tmp_path: Path) -> None:
    """The files of GLUE have texts with single quotation marks; as in pandas without quoting, each line is a row."""
    lines = [f"{text}\t{n % 2}" for n, text in enumerate(GLUE_LINES)]
    (tmp_path / "train.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    data = TaskDataModule("sst2", "local", path=str(tmp_path), selection_rows=0)
    plain = ["whole" if text == '"whole"' else text for text in GLUE_LINES]
    assert [(row["sentence"], row["label"]) for row in data.rows("train")] == [(t, n % 2) for n, t in enumerate(plain)]
    (tmp_path / "train.tsv").write_text('sentence\tlabel\n"two\nlines"\t1\n"a\ttab"\t0\n')
    data = TaskDataModule("sst2", "local", path=str(tmp_path), selection_rows=0)
    assert [row["sentence"] for row in data.rows("train")] == ["two\nlines", "a\ttab"]


def test_a_quotation_over_two_columns_of_a_table_with_tabs_is_text(tmp_path: Path) -> None:
    lines = ['" We are happy .\tHe said it . "\t0', '"one"\t"two"\t1', '"a\t"b\t0', "", 'x "y\tz" w\t1']
    (tmp_path / "train.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *lines]) + "\n")
    data = TaskDataModule("mrpc", "local", path=str(tmp_path), selection_rows=0)
    assert [(row["sentence1"], row["sentence2"], row["label"]) for row in data.rows("train")] == [
        ('" We are happy .', 'He said it . "', 0),
        ("one", "two", 1),
        ('"a', '"b', 0),
        ('x "y', 'z" w', 1),
    ]


def test_numbers_of_a_text_table_are_read(tmp_path: Path, byte_tokenizer: Any) -> None:
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tlabel\na b\tc\t2.5\nd\te\t0\n")
    data = TaskDataModule("stsb", "local", path=str(tmp_path), selection_rows=0)
    assert [row["label"] for row in data.rows("train")] == [2.5, 0.0]
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tlabel\na b\tc\thigh\n")
    data = TaskDataModule("stsb", "local", path=str(tmp_path), selection_rows=0)
    with pytest.raises(UserError, match=r"train\.tsv.*must be a number from 0 to 5, not text"):
        data.rows("train")


def write(folder: Path, labels: list[int], text: str = "one two three four five six") -> Path:
    lines = [json.dumps({"sentence": f"{text} {n}", "label": label}) for n, label in enumerate(labels)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def items(folder: Path, tokenizer: Any, task: str = "cola", **settings: Any) -> Any:
    data = TaskDataModule(task, "local", path=str(folder), selection_rows=0, **settings)
    data.tokenizer = tokenizer
    data.setup("fit")
    return data.sets.training_items()


def test_training_rows_of_one_class_are_refused(tmp_path: Path, byte_tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"all 3 training rows of cola have the label 'acceptable'.*the classes are"):
        items(write(tmp_path, [1, 1, 1]), byte_tokenizer)


def test_long_texts_are_cut_and_counted(tmp_path: Path, byte_tokenizer: Any) -> None:
    write(tmp_path, [0, 1], text="abcdefghij")
    cut = items(tmp_path, byte_tokenizer, max_length=5)
    assert [byte_tokenizer.decode(item.ids) for item in cut] == ["abcde", "abcde"]
    assert cut.statistics["share_truncated"] == 1
    assert cut.statistics["target_tokens"] == 2
    byte_tokenizer.truncation_side = "left"
    try:
        assert [byte_tokenizer.decode(item.ids) for item in items(tmp_path, byte_tokenizer, max_length=4)] == [
            "abcd"
        ] * 2
        assert byte_tokenizer.truncation_side == "left"
    finally:
        byte_tokenizer.truncation_side = "right"


def test_a_pair_without_separator_gets_a_line_break_and_loses_the_longer_text(
    tmp_path: Path, byte_tokenizer: Any
) -> None:
    row = {"sentence1": "abcdefgh", "sentence2": "xyz", "label": 0}
    lines = [json.dumps(row), json.dumps({**row, "sentence2": "uvw", "label": 1})]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    assert byte_tokenizer.decode(items(tmp_path, byte_tokenizer, "rte")[0].ids) == "abcdefgh\nxyz"
    assert byte_tokenizer.decode(items(tmp_path, byte_tokenizer, "rte", max_length=8)[0].ids) == "abcdexyz"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"packing": True}, "data.packing is True, but task 'cola' has no prompt"),
        ({"num_fewshot": 2}, "data.num_fewshot is 2, but task 'cola'"),
        ({"report_tasks": ["rte"]}, r"'cola' \(classification\) and 'rte' \(classification\) need different heads"),
        ({"report_tasks": ["stsb"]}, "need different heads"),
        ({"report_tasks": ["piqa"]}, "need different heads"),
        ({"task": "mixture", "mixture": ["rte", "qnli"]}, "data.mixture: a model with a new head"),
        ({"protocol": "likelihood"}, "task 'cola' has no protocol 'likelihood'; it has classification"),
    ],
)
def test_settings_of_prompts_and_replies_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TaskDataModule(**{"task": "cola", **settings})
