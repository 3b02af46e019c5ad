"""What is said about all rows of a split: messages without a reply, labels that may count from 1, missing fields."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.rows.overlap import Overlap
from smoa_lightning.data.tasks import TASKS, RowError
from smoa_lightning.data.tasks.generic import task_with_fields
from smoa_lightning.records.record import content

from ..conftest import character_tokenizer


def made(folder: Path, task: str, rows: Mapping[str, Iterable[Any]], **settings: Any) -> TaskDataModule:
    for split, split_rows in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split_rows))
    data = TaskDataModule(task, source="local", path=str(folder), **settings)
    data.tokenizer = character_tokenizer()
    data.resolve()
    return data


def said(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]}


def test_a_last_message_without_a_reply_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, cut = said("user", "assistant"), said("user", "assistant", "user")
    data = made(tmp_path, "chat", {"train": [whole, cut, cut, whole], "validation": [whole, said("user", "assistant")]})
    with caplog.at_level(logging.INFO, logger="smoa_lightning"):
        assert len(data.rows("train")) == 4
        data.rows("train"), data.rows("validation")
    text = "2 of 4 conversations end with a message of the user that has no reply, so this message is not used"
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / 'train.jsonl'}: {text}."]
    assert data.sets.trained["chat"].facts()["remarks"] == {"train": text}


def choices(labels: Iterable[Any]) -> list[dict[str, Any]]:
    texts = ["ice", "fire", "steam", "fog"]
    return [{"prompt": f"Hot {n}?", "choices": texts, "label": label} for n, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "count"),
    [([1, 2, 3], 3), (["1", "2", 3.0, "A"], 3), ([0, 1, 2], 0), (["A", "B"], 0), (["fire", "ice"], 0), (["0", 3], 0)],
)
def test_labels_that_may_count_from_one(
    labels: list[Any], count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are positions from 0 on in every case; a file without the label 0 gets a note."""
    data = made(tmp_path, "choice", {"train": choices(labels)})
    with caplog.at_level(logging.INFO, logger="smoa_lightning"):
        data.rows("train")
    note = f"no label of {count} rows is 0; they were read as positions from 0 on: if they count from 1, set"
    assert (note in caplog.text) == bool(count)


@pytest.mark.parametrize("labels", [[1, 2, 3, 4], ["1", "2", "3", "4"], [1.0, 2.0, 3.0, 4.0]])
def test_labels_from_one_are_declared(labels: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = {"train": choices(labels * 10), "validation": choices(labels)}
    with pytest.raises(UserError, match=r"row 4.*field 'label' is .*, or set data\.first_label to 1"):
        made(tmp_path, "choice", rows, bad_rows="skip").rows("train")
    data = made(tmp_path, "choice", rows, first_label=1)
    assert [data.example("report", row).label for row in range(4)] == [0, 1, 2, 3]
    assert data.rows("train").num_bad == 0
    assert not caplog.text


def test_a_wrong_declaration_is_refused(tmp_path: Path) -> None:
    rows = {"train": choices([1, 0, 2])}
    for bad_rows in ("error", "skip"):
        with pytest.raises(UserError, match=r"row 2: field 'label' is 0, but data\.first_label is 1"):
            made(tmp_path, "choice", rows, first_label=1, bad_rows=bad_rows).rows("train")
    with pytest.raises(UserError, match=r"data\.first_label is for the task 'choice', but data\.task is 'piqa'"):
        made(tmp_path, "piqa", {}, first_label=1)
    with pytest.raises(UserError, match=r"data\.first_label is 2, but must be at least 0 and at most 1"):
        made(tmp_path, "choice", {}, first_label=2)
    named = [{**row, "labels": ["3", "4", "5", "6"]} for row in choices([3])]
    assert made(tmp_path, "choice", {"train": named}, first_label=1).example("train", 0).label == 0


def test_the_same_rows_are_not_read_from_the_cache_with_another_declaration(tmp_path: Path) -> None:
    rows = {"train": choices([1, 2, 3] * 10)}
    assert made(tmp_path, "choice", rows).example("train", 0).label == 1
    assert made(tmp_path, "choice", rows, first_label=1).example("train", 0).label == 0
    assert made(tmp_path, "choice", rows).example("train", 0).label == 1


def test_signatures_of_runs_without_the_setting_stay() -> None:
    assert content({"data": {"task": "choice", "first_label": 0}}) == {"data": {"task": "choice"}}
    assert content({"data": {"first_label": 1}}) == {"data": {"first_label": 1}}


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("choice", "reads prompt, choices, label and, if there is one, labels"),
        ("instruction", "reads instruction, output and, if there is one, input"),
        ("chat", "reads messages and, if there is one, system and history"),
    ],
)
def test_a_missing_field_lists_all_fields(task: str, fields: str) -> None:
    """Also if data.fields names the field by its own name, as the shipped experiments do."""
    first = next(iter(TASKS[task].schema))
    for each in (TASKS[task], task_with_fields(TASKS[task], {first: first})):
        with pytest.raises(RowError) as refused:
            each.check({"q": "Hot?"})
        text = f"field {first!r} is missing (the row has q); task {task!r} {fields}, and data.fields maps other names"
        assert str(refused.value) == text


def goals(*numbers: int) -> list[dict[str, Any]]:
    return [{"goal": f"goal {n}", "sol1": "a", "sol2": "b", "label": 0} for n in numbers]


def test_the_overlap_counts_used_rows(tmp_path: Path) -> None:
    rows = {"train": goals(*range(40)), "validation": goals(*range(30, 50))}
    data = made(tmp_path, "piqa", rows, limit_report_rows=8)
    used = data.indices("report")
    same = sum(row < 10 for row in used)
    assert data.sets.reported["piqa"].overlap == Overlap(8, same, same)
    data = made(tmp_path, "piqa", rows, limit_train_rows=5, selection_rows=2)
    trained = {*data.indices("train"), *data.indices("selection")}
    same = len(trained & set(range(30, 40)))
    assert data.sets.reported["piqa"].overlap == Overlap(20, same, same)
    assert 0 < same < 7
