"""What a run does not read, or should not report, is said: ignored columns, and report rows that are training rows."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.rows.overlap import Overlap
from smoa_lightning.data.rows.sources import Origin, load_split
from smoa_lightning.data.tasks import TASKS, task_with_fields
from smoa_lightning.records.tables import part_table

from ..conftest import character_tokenizer
from ..made_rows import ROWS

GOAL = {"goal": "Dry a cup", "sol1": "a towel", "sol2": "a sieve", "label": 1}


def write(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ignored(tmp_path: Path, task: str, rows: list, fields=None) -> list[str]:
    write(tmp_path / "train.jsonl", rows)
    return load_split(task_with_fields(TASKS[task], fields), "train", Origin("local", str(tmp_path)))[0].ignored


# ---- ignored columns


def test_columns_with_values_are_named_once(tmp_path):
    rows = [{**GOAL, "id": 1, "note": None, "tags": [], "": "x"}, {**GOAL, "id": 2, "score": 0, "empty": ""}]
    assert ignored(tmp_path, "piqa", rows) == ["id", "score"]


def test_renamed_columns(tmp_path):
    row = {**GOAL, "question": "Dry a plate"}
    assert ignored(tmp_path, "piqa", [row], {"goal": "question"}) == ["goal"]
    choice = {"q": "Hot?", "right": "fire", "wrong": "ice", "key": 0, "choices": "old"}
    fields = {"prompt": "q", "choices": ["right", "wrong"], "label": "key"}
    assert ignored(tmp_path, "choice", [choice], fields) == ["choices"]


@pytest.mark.parametrize(
    ("task", "row", "names"),
    [
        ("instruction", {"instruction": "a", "output": "b", "system": "c", "history": [["d", "e"]]}, "history system"),
        ("chat", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                  "tools": [{}], "system": "s"}, "tools"),
        ("chat", {"messages": [{"role": "user", "content": "a", "name": "Al"},
                               {"role": "assistant", "content": "b", "tool_calls": [1], "refusal": None}]},
         "messages.name messages.tool_calls"),
        ("social_i_qa", {"context": "c", "question": "q", "answerA": "a", "answerB": "b", "answerC": "c",
                         "correct": "A"}, ""),
        ("openbookqa", {"question": {"stem": "Q", "choices": [{"text": n, "label": n} for n in "AB"]},
                        "answerKey": "A", "fact1": "f"}, "fact1"),
    ],
)  # fmt: skip
def test_columns_of_other_layouts(tmp_path, task, row, names):
    assert ignored(tmp_path, task, [row]) == names.split()


def test_rows_of_many_different_columns(tmp_path):
    assert 100 <= len(ignored(tmp_path, "piqa", [{**GOAL, f"c{n}": 1} for n in range(300)])) <= 101


def test_the_table_of_rows_names_them():
    part = dict.fromkeys(["rows", "tokens", "target_tokens", "length_mean", "length_median", "length_max"], 1)
    part |= {"share_truncated": 0, "skipped_overlong": 0, "prefix_mismatches": 0}
    one = part_table({"train": part, "ignored_columns": ["id", "split"]})
    assert one.splitlines()[-1] == "ignored columns: id, split"
    two = {"piqa": {"train": part, "ignored_columns": [f"c{n}" for n in range(25)]}, "boolq": {"train": part}}
    assert part_table(two).splitlines()[-1].startswith("ignored columns of piqa: c0, c1,")
    assert part_table(two).endswith("c19 and 5 more")
    assert "ignored" not in part_table({"train": part})


def test_the_layouts_of_the_hub_have_only_facts_that_are_not_needed():
    known = {"hellaswag": ["ctx", "ind", "split", "split_type"], "arc_easy": ["id"], "openbookqa": ["id"]}
    known["daily_dialog"] = ["act", "emotion"]
    for name in ("boolq", "piqa", "social_i_qa", "winogrande", "gsm8k", "convai2", *known):
        rows, _ = load_split(TASKS[name], "train", Origin("embedded"))
        assert rows.ignored == known.get(name, []), name


# ---- report rows that are training rows


def made(tmp_path: Path, train: list, report: list, task: str = "piqa", **settings) -> TaskDataModule:
    write(tmp_path / "rows" / "train.jsonl", train)
    write(tmp_path / "rows" / "validation.jsonl", report)
    data = TaskDataModule(task, source="local", path=str(tmp_path / "rows"), **settings)
    data.tokenizer = character_tokenizer()
    data.resolve()
    return data


def goals(start: int, stop: int, label: int = 0) -> list:
    return [{**GOAL, "goal": f"goal {n}", "label": label} for n in range(start, stop)]


@pytest.mark.parametrize(
    ("report", "found", "level"),
    [
        (goals(0, 40), Overlap(40, 40, 40), logging.WARNING),
        (goals(30, 50), Overlap(20, 10, 10), logging.WARNING),
        (goals(30, 50, label=1), Overlap(20, 10, 0), logging.INFO),
        (goals(38, 42) + goals(39, 40, label=1), Overlap(5, 3, 2), logging.WARNING),
        (goals(40, 60), Overlap(20, 0, 0), None),
    ],
)
def test_an_overlap_is_logged(tmp_path, caplog, report, found, level):
    data = made(tmp_path, goals(0, 40), report)
    with caplog.at_level(logging.INFO, logger="smoa_lightning"):
        data.sets.report_overlaps()
    assert data.sets.reported["piqa"].overlap == found
    assert max((record.levelno for record in caplog.records), default=None) == level
    if found.identical:
        assert f"overlap: {found.identical} of {found.rows} report rows are training rows too" in caplog.text
    if found.same_group > found.identical:
        count = found.same_group - found.identical
        assert f"piqa: {count} of {found.rows} report rows are not training rows, but share their group" in caplog.text
    assert data.sets.summary()["train_report_overlap"] == found.same_group


def test_an_overlap_of_replies_and_of_several_tasks(tmp_path, caplog):
    rows = ROWS["chat"][:4]
    data = made(tmp_path, rows, rows[:1], "chat")
    data.sets.report_overlaps()
    assert "report rows are training rows too" in caplog.text
    caplog.clear()
    for name in ("piqa", "boolq"):
        write(tmp_path / "both" / name / "train.jsonl", ROWS[name])
        write(tmp_path / "both" / name / "validation.jsonl", ROWS[name][:3] if name == "boolq" else goals(0, 3))
    data = TaskDataModule("mixture", source="local", path=str(tmp_path / "both"), mixture=["piqa", "boolq"])
    data.sets.report_overlaps()
    assert "boolq: report and training rows overlap: 3 of 3" in caplog.text
    assert "piqa" not in caplog.text


def test_training_rows_alone_have_no_overlap(tmp_path, caplog):
    path = write(tmp_path / "train.jsonl", goals(0, 3))
    data = TaskDataModule("piqa", source="local", path=str(path))
    data.sets.report_overlaps()
    assert not caplog.text


# ---- one prompt in all rows


def test_one_prompt_in_all_rows_names_the_remedy(tmp_path):
    rows = [{"prompt": "Which?", "choices": [f"a {n}", f"b {n}"], "label": 0} for n in range(40)]
    data = made(tmp_path, rows, rows, "choice")
    with pytest.raises(UserError, match=r"40 training rows of one group .*set data.selection_rows: 0 to train"):
        data.setup("fit")
    data = made(tmp_path, rows, rows, "choice", selection_rows=0)
    data.setup("fit")
    assert len(data.indices("train")) == 40
