"""Folders and files where nothing is are refused before heavy imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import help_or_check


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


def test_places_of_a_file_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {source: local, path: {train: no/train.csv, validation: [no/other.csv]}}\n")
    with pytest.raises(UserError, match=r"data\.path: no/train\.csv does not exist\."):
        help_or_check("fit", ["--config", str(tmp_path / "a.yaml"), "--model.adapter", "null"])
