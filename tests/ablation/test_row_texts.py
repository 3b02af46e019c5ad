"""The texts of report rows, read again with the settings of the run that decide how rows are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from smoa_lightning.ablation.comparison.row_texts import RowText, row_texts
from smoa_lightning.ablation.comparison.scored_run import ReportedTask, ScoredRun
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.tasks import get_task


def texts_of(task: str, path: Path, head: dict[str, Any] | None = None, **settings: Any) -> dict[int, RowText]:
    """Return the texts of the first two rows of a run with these settings."""
    data = TaskDataModule(task=task, source="local", path=str(path), **settings)
    data.resolve()
    rows = data.sets.reported[task]
    rows.rows("validation")
    digest = rows.provenance["splits"]["validation"]["sha256"]
    record = {"config": {"data": {"path": str(path), "bad_rows": "error", **settings}}, "data": {"task": task}}
    record |= {"backbone": {"head": head}} if head else {}
    protocol = rows.protocol.name
    reported = ReportedTask(task, get_task(task).version, protocol, "local", "validation", digest)
    found = row_texts(ScoredRun(path, record, "report", {task: reported}, {}), task, [0, 1])
    assert not found.missing, found.missing
    return dict(found.rows)


def test_choices_whose_labels_count_from_one(tmp_path: Path) -> None:
    lines = [{"q": f"{a} + 1?", "choices": [f"{a}", f"{a + 1}"], "label": 2} for a in (1, 2)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = texts_of("choice", tmp_path, fields={"prompt": "q"}, first_label=1)
    assert [text.choices for text in found.values()] == [("1", "2"), ("2", "3")]
    assert "1 + 1?" in found[0].prompt


def test_own_images_have_the_names_of_the_head(tmp_path: Path) -> None:
    """A run of an earlier version has the names in its head alone."""
    for split in ("train", "validation"):
        for number, name in enumerate(("round", "square")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (4, 4), (number * 200, 0, 0)).save(tmp_path / split / name / "0.png")
    head = {"kind": "image_classification", "names": ["round", "square"]}
    found = texts_of("image_classification", tmp_path, head)
    assert all(text.choices == ("round", "square") for text in found.values())


def test_prompts_of_published_rules(tmp_path: Path) -> None:
    row = {"question": "Is ice cold", "passage": "Ice is frozen water.", "answer": True}
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join([json.dumps(row), json.dumps(row | {"question": "Is it"})]))
    plain, published = (texts_of("boolq", tmp_path, **rules) for rules in ({}, {"rules": "llm_adapters"}))
    assert "Below is an instruction" in published[0].prompt
    assert "Below is an instruction" not in plain[0].prompt
