"""A refused run leaves nothing behind: one sentence, status 2, no folder, and the base model was not scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from smoa_lightning import embedded
from smoa_lightning.__main__ import main
from smoa_lightning.training.module import FineTuneModule

from ..configuration.commands import refused

STOP = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping --trainer.callbacks.monitor"
SETTINGS = {
    f"{STOP}=val_loss": "EarlyStopping monitors 'val_loss', which no run logs during training; the nearest is ",
    f"{STOP}=selection/blue": "EarlyStopping monitors 'selection/blue'",
    "--trainer.callbacks+=LearningRateMonitor --trainer.logger=false": "LearningRateMonitor needs a logger",
    "--model.adapter.r=5000": "between 1 and",
    "--model.adapter.target_modules=[q_prog]": "target_modules entry 'q_prog' matches no module",
    "--data.max_length=4": "data.overlong",
    "--data.selection_rows=160": "data.selection_rows is 160, but there are 160 training rows: at most 1",
    "--model.warmup=99": "set it to at most 18",
    "--data.report_split=test": "no file for split 'test'",
    "--data.fields={label: answer}": "field 'answer', which data.fields names for 'label', is missing",
    "--forgetting.text=/no/where.txt": "does not exist",
    "--model.backbone.source=hub": "model.backbone.path is",
    "--model.backbone.source=embedded": "model.backbone.path is",
    "--model.backbone.source=embedded --model.backbone.path=null --model.backbone.name=own/model": "which ignores it",
    "--data.revision=main": "data.revision is 'main', but data.source is 'local', which ignores it",
    "--data={repository: own/rows}": "data.repository is 'own/rows', but data.source is 'local', which ignores it",
    "--data.repository=own/rows": "data.repository is 'own/rows', but data.source is 'local', which ignores it",
}
TRAIN = {  # a change of a training row -> the sentence
    "label": ({"label": 2}, "field 'label' is 2, but must be one of 0, 1"),
    "field": ({"sol2": None}, "field 'sol2' must be text"),
    "empty": ({"goal": " "}, "field 'goal' must not be empty"),
}


@pytest.fixture(autouse=True)
def _nothing_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def score_items(*args: Any) -> NoReturn:
        raise AssertionError("the base model was scored")

    monkeypatch.setattr(FineTuneModule, "score_items", score_items)


def leaves_nothing(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    text = refused(["fit", *arguments], capsys)
    assert not (tmp_path / "runs").exists()
    return text


@pytest.mark.parametrize("words", SETTINGS)
def test_bad_settings(
    words: str, tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--{word}" for word in f" {words}".split(" --")[1:]]
    assert SETTINGS[words] in leaves_nothing([*tiny_arguments, *given], tmp_path, capsys)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("fault", TRAIN)
def test_bad_rows(
    fault: str, split: str, tiny_arguments: list[str], piqa_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = shutil.copytree(piqa_folder, tmp_path / "rows")
    lines = (rows / f"{split}.jsonl").read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | TRAIN[fault][0])
    (rows / f"{split}.jsonl").write_text("\n".join(lines))
    text = leaves_nothing([*tiny_arguments, f"--data.path={rows}"], tmp_path, capsys)
    assert f"{split}.jsonl, row 3: {TRAIN[fault][1]}" in text


def test_damaged_weights(
    tiny_arguments: list[str], tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are read after the folder was taken, and a run of the user's in the same place stays."""
    model = shutil.copytree(tiny_backbone, tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"")
    arguments = [*tiny_arguments, f"--model.backbone.path={model}"]
    leaves_nothing(arguments, tmp_path, capsys)
    (tmp_path / "kept").mkdir()
    assert main(["fit", *arguments, "--run.folder", str(tmp_path / "kept")]) == 2
    assert (tmp_path / "kept" / "record.json").is_file()


def test_a_backbone_of_a_later_source_is_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file for the embedded model after the file of the paper is a trial, and no contradiction."""
    files = ["--config", "piqa", "--config", "paper", "--config", "backbones/embedded.yaml"]
    assert main(["params", *files]) == 0
    assert "backbone: embedded" in capsys.readouterr().out
    text = refused(["params", *files, "--model.backbone.name", "own/model"], capsys)
    assert "model.backbone.name is 'own/model', but model.backbone.source is 'embedded', which ignores it" in text
    (tmp_path / "both.yaml").write_text("model: {backbone: {source: embedded, revision: main}}\n")
    assert "model.backbone.revision is 'main'" in refused(["params", "--config", str(tmp_path / "both.yaml")], capsys)


@pytest.mark.parametrize("task", ["arc_easy", "openbookqa", "gsm8k"])
def test_a_folder_without_the_split_of_the_report(
    task: str, tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows").mkdir()
    for split in ("train", "validation"):
        lines = [json.dumps(row) for row in embedded.rows(task, split)[:24]]
        (tmp_path / "rows" / f"{split}.jsonl").write_text("\n".join(lines))
    arguments = [*tiny_arguments, f"--data.task={task}", f"--data.path={tmp_path / 'rows'}"]
    text = leaves_nothing(arguments, tmp_path, capsys)
    assert f"task '{task}' reports on 'test': to report on other rows, add --data.report_split validation" in text


def test_an_evaluation_that_is_refused_leaves_no_folder(
    tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = ["--model.adapter=null", "--model.frozen=true", "--data.max_length=4"]
    without_rank = [word for word in tiny_arguments if word not in ("--model.adapter.r", "4")]
    for command in ("fit", "validate", "test", "predict"):
        assert "data.overlong" in refused([command, *without_rank, *frozen], capsys)
        assert not (tmp_path / "runs").exists()
