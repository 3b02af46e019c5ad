"""A task of a program of the user's: known to the commands of its process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.combinations import check_task
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.tasks import PIQA, TASKS, get_task, register_task
from smoa_lightning.embedded import rows


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a task, which is removed after the test."""
    yield "mine"
    TASKS.pop("mine", None)


def test_a_registered_task_is_known_to_the_registry_and_the_early_check(name: str) -> None:
    with pytest.raises(UserError, match="unknown task 'mine'"):
        check_task(name)
    task = dataclasses.replace(PIQA, name=name)
    assert register_task(task) is register_task(task) is get_task(name)
    check_task(name)


def test_corrected_code_of_a_task_reads_its_rows_again(name: str, tmp_path: Path) -> None:
    """The package cannot see the code of a program, so it does not keep the rows of its tasks."""
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows("piqa", "train")[:4]))

    def labels(turned: bool) -> list[int]:
        TASKS.pop(name, None)
        turn = (lambda row: {**row, "label": 1 - row["label"]}) if turned else (lambda row: row)
        register_task(dataclasses.replace(PIQA, name=name, normalise=turn))
        data = TaskDataModule(name, "local", path=str(tmp_path), selection_rows=0)
        return [row["label"] for row in data.rows("train")]

    first = labels(turned=False)
    assert labels(turned=True) == [1 - label for label in first]


def test_a_different_task_of_a_known_name_is_refused(name: str) -> None:
    register_task(dataclasses.replace(PIQA, name=name))
    with pytest.raises(UserError, match="there is a task 'mine' already"):
        register_task(dataclasses.replace(PIQA, name=name, version=2))
    with pytest.raises(UserError, match="there is a task 'piqa' already"):
        register_task(dataclasses.replace(PIQA, version=2))
