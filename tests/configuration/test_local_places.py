"""Folders and files where nothing is are refused before heavy imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoa_lightning.ablation.comparison.scored_run import run_record
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import near_place
from smoa_lightning.configuration import help_or_check
from smoa_lightning.records.adapter_places import adapter_in
from smoa_lightning.training.checkpoint import verify


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--model.backbone.source", "local", "--model.backbone.path", "no/where"],
            "model.backbone.path: no/where does",
        ),
        (
            ["--model.backbone.source", "local", "--model.backbone.path", "."],
            "no config.json in '.'",
        ),
        (["--data.source", "local", "--data.path", "no/where"], "data.path: no/where does not exist."),
        (["--data.source", "local", "--data.path", "{train: ., test: no/file.csv}"], None),  # for the parser
        (["--data.source", "local", "--data.path", "s3://no/where"], None),
        (["--data.source", "local", "--data.path", "no/*.jsonl"], None),
        (["--data.path", "no/where"], None),  # not a local source, which has its own sentence
        (["--model.distillation.teacher", "./nothing"], "model.distillation.teacher: the folder './nothing' does not"),
        (["--model.distillation.teacher", "some/model"], None),
    ],
)
def test_places_where_nothing_is_are_refused_without_torch(
    flags: list[str], words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--model.adapter", "null", *flags]
    if words is None:
        assert not help_or_check("fit", arguments)
        return
    with pytest.raises(UserError) as error:
        help_or_check("fit", arguments)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--data.source", "local", "--data.path", "my_row"],
            "data.path: my_row does not exist; the nearest is my_rows.",
        ),
        (
            ["--data.source", "local", "--data.path", "My_row/train.csv"],
            "data.path: My_row/train.csv does not exist; the nearest is my_rows.",
        ),
        (
            ["--data.source", "local", "--data.path", "my_rows/tran.csv"],
            "data.path: my_rows/tran.csv does not exist; the nearest is my_rows/train.csv.",
        ),
        (["--data.source", "local", "--data.path", "my_rows/zzz"], "data.path: my_rows/zzz does not exist."),
        (["--data.source", "local", "--data.path", "my_rows/train.csv/x"], "my_rows/train.csv/x does not exist."),
        (
            ["--model.backbone.source", "local", "--model.backbone.path", "{}/smollm"],
            "model.backbone.path: {0}/smollm does not exist; the nearest is {0}/smollm2",
        ),
        (
            ["--model.distillation.teacher", "./smollm"],
            "model.distillation.teacher: the folder './smollm' does not exist; the nearest is smollm2",
        ),
        (
            ["--config", "my_stting"],
            "--config: the file 'my_stting' does not exist; the working directory has my_setting",
        ),
        (["--config", "my_row/a.yaml"], "--config: the file 'my_row/a.yaml' does not exist; the nearest is my_rows"),
        (["--config", "my_stting.yaml"], "the file 'my_stting.yaml' does not exist; '.' holds my_setting.yaml"),
        (["--config", "piqqa"], "--config: the file 'piqqa' does not exist; the package has piqa"),
    ],
)
def test_the_nearest_entry_of_the_folder_is_named(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("my_rows", "smollm2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "my_rows" / "train.csv").touch()
    (tmp_path / "my_setting.yaml").touch()
    with pytest.raises(UserError) as error:
        help_or_check("fit", ["--model.adapter", "null", *(flag.format(tmp_path) for flag in flags)])
    assert str(error.value).endswith(words.format(tmp_path))


def test_a_missing_run_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mood").mkdir(parents=True)
    place = tmp_path / "runs" / "mod" / "version_0"
    near = f"does not exist; the nearest is {tmp_path / 'runs' / 'mood'}"
    for call in (adapter_in, read_study, run_record, verify):
        with pytest.raises(UserError) as error:
            call(place)
        assert str(error.value).endswith(near)
    for url in ("s3://my_row", "~nobody/x"):
        assert near_place(url) == ""


def test_places_of_a_file_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {source: local, path: {train: no/train.csv, validation: [no/other.csv]}}\n")
    with pytest.raises(UserError, match=r"data\.path: no/train\.csv does not exist\."):
        help_or_check("fit", ["--config", str(tmp_path / "a.yaml"), "--model.adapter", "null"])
