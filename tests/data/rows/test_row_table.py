"""Checked rows are written once, found again by what decides them, and read by index."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows import arrow_file, readers, sources
from smoa_lightning.data.rows.row_table import RowTable
from smoa_lightning.data.rows.sources import Origin, load_split
from smoa_lightning.data.tasks import CHAT, CHOICE, PIQA, Task, task_with_fields

NUM_ROWS = 2500  # three record batches
ROWS = [{"goal": f"Goal {n % 40}", "sol1": f"a {n}", "sol2": "b", "label": n % 2} for n in range(NUM_ROWS)]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMOA_LIGHTNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def load(file: Path, task: Task = PIQA, cache: bool = True, **settings: object) -> RowTable:
    return load_split(task, "train", Origin("local", path=str(file)), cache=cache, **settings)[0]


def tables(file: Path) -> int:
    return len(list((file.parent / "cache").rglob("*.arrow")))


def test_a_sequence_of_rows(file: Path) -> None:
    rows = load(file)
    assert len(rows) == NUM_ROWS
    assert list(rows) == rows[:] == ROWS
    assert [rows[n] for n in (0, 1023, 1024, 2499, -1)] == [ROWS[n] for n in (0, 1023, 1024, 2499, -1)]
    assert rows[1020:1030:3] == ROWS[1020:1030:3]
    assert rows[np.int64(7)] == ROWS[7]
    for index in (NUM_ROWS, -NUM_ROWS - 1):
        with pytest.raises(IndexError):
            rows[index]
    assert len(set(rows.groups.tolist())) == 40
    assert all((rows.groups == rows.groups[3]) == [PIQA.group(row) == "goal 3" for row in ROWS])


def test_a_second_reading_finds_the_table(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, provenance = load_split(PIQA, "train", Origin("local", path=str(file)), cache=True)
    monkeypatch.setattr(sources, "read_file", None)
    again, same = load_split(PIQA, "train", Origin("local", path=str(file)), cache=True)
    assert list(again) == list(first)
    assert provenance == same
    assert tables(file) == 1
    assert list((file.parent / "scratch").iterdir()) == []


def test_without_the_cache_no_file_is_left(file: Path) -> None:
    rows = load(file, cache=False)
    assert list(rows) == ROWS
    assert list((file.parent / "scratch").iterdir()) == []
    assert not (file.parent / "cache").exists()


def test_each_setting_that_decides_the_rows_makes_a_new_table(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(file)
    load(file, bad_rows="skip")
    load(file, task_with_fields(PIQA, {"sol1": "sol2", "sol2": "sol1"}))
    monkeypatch.setattr(sources, "code_digest", lambda: "another version of the code")
    load(file)
    assert tables(file) == 4


def test_an_edited_file_is_read_again(file: Path) -> None:
    assert load(file)[0]["goal"] == "Goal 0"
    times = file.stat()
    file.write_text(file.read_text().replace("Goal 0", "Goal X"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time: the content tells
    assert load(file)[0]["goal"] == "Goal X"
    os.utime(file)
    assert load(file)[0]["goal"] == "Goal X"
    assert tables(file) == 3


def test_a_bad_row_leaves_no_file(file: Path) -> None:
    with file.open("a") as stream:
        stream.write('{"goal": "", "sol1": "a", "sol2": "b", "label": 0}\n')
    for cache in (True, False):
        with pytest.raises(UserError, match=rf"train\.jsonl, row {NUM_ROWS + 1}: field 'goal' must not be empty\."):
            load(file, cache=cache)
    assert tables(file) == 0
    assert list((file.parent / "scratch").iterdir()) == []
    rows, provenance = load_split(PIQA, "train", Origin("local", path=str(file)), "skip", cache=True)
    again = load_split(PIQA, "train", Origin("local", path=str(file)), "skip", cache=True)[1]
    assert list(rows) == ROWS
    assert provenance.num_bad_rows == again.num_bad_rows == 1


def test_rows_are_read_one_by_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than a record batch of rows is in memory while a file is read."""
    alive, most = 0, 0
    checked = Task.rows_of

    class Counted(dict):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def count(task: Task, raw: dict) -> list:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return checked(task, Counted(raw))

    monkeypatch.setattr(Task, "rows_of", count)
    load(file)
    assert alive <= 1
    assert most <= 2


def test_values_that_a_column_of_arrow_would_refuse(file: Path) -> None:
    rows = [
        {"prompt": "p", "choices": ["a", "b"], "label": 0, "extra": 1},
        {"prompt": "p", "choices": ["a", "b", "ß"], "label": "b", "extra": "x", "labels": None},
        {"prompt": "p", "choices": ["a", "2"], "label": 1, "labels": ["x", "y\u2028"], "other": {"a": [1, "b"]}},
    ]
    rows[2]["label"] = "x"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load(file, CHOICE)
    assert [row["label"] for row in found] == [0, "b", "x"]
    assert found[2]["labels"] == ["x", "y\u2028"]
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}] * 2
    file.write_text(json.dumps({"messages": turns}) + "\n")
    assert [row["reply"] for row in load(file, CHAT)] == ["ho", "ho"]


def test_the_digest_of_the_code_is_that_of_this_folder() -> None:
    assert len(arrow_file.code_digest()) == 64
    assert Path(readers.__file__).is_relative_to(Path(arrow_file.__file__).parents[1])
