"""Runs that report nothing, and evaluations that train nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main


def test_a_single_file_trains_and_says_that_nothing_is_reported(
    tiny_arguments: list[str], piqa_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data.path", str(piqa_folder / "train.jsonl")]
    assert main(["fit", *tiny_arguments, *flags]) == 0
    said = capsys.readouterr().out
    assert "nothing will be reported; to have a report, set data.path to a folder with train and validation" in said
    (file,) = tmp_path.glob("runs/*/*/record.json")
    metrics = json.loads(file.read_text())["metrics"]
    assert "selection/acc" in metrics
    assert not any(name.startswith(("base/", "report/")) for name in metrics)


def test_the_frozen_backbone_predicts_without_a_checkpoint(tiny_arguments: list[str], tmp_path: Path) -> None:
    rank = tiny_arguments.index("--model.adapter.r")
    flags = [*tiny_arguments[:rank], *tiny_arguments[rank + 2 :], "--model.frozen", "true", "--model.adapter", "null"]
    assert main(["predict", *flags]) == 0
    (file,) = tmp_path.glob("runs/*/predict/predictions.jsonl")
    assert len(file.read_text().splitlines()) == 24
