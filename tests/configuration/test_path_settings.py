"""``~`` is the home folder in every setting that is a path, and a checkpoint stores absolute paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.backbones.backbone import BackboneConfig, locate
from smoa_lightning.commands import generate, rank
from smoa_lightning.common.paths import absolute, local_path
from smoa_lightning.configuration.check import check_arguments
from smoa_lightning.configuration.path_settings import PLACES, absolute_sources, expand_places
from smoa_lightning.configuration.yaml_files import expand_bases
from smoa_lightning.data.rows.locations import plain
from smoa_lightning.records.record import flat
from smoa_lightning.training.callbacks.forgetting import documents


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a model, rows, a text and configuration files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "text.txt").write_text("One.")
    (tmp_path / "below.yaml").write_text("seed_everything: 1\n")
    (tmp_path / "above.yaml").write_text("base: ~/below.yaml\n")
    return tmp_path


def test_what_reads_a_path_expands_it(home: Path) -> None:
    assert locate(BackboneConfig("local", path="~/model")).name == str(home / "model")
    assert plain("~/rows") == str(home / "rows")
    assert documents("~/text.txt", 1) == ["One."]
    assert expand_bases(["--config=~/above.yaml"])[1::2] == [str(home / "below.yaml"), str(home / "above.yaml")]
    assert generate.parser().parse_args(["~/run", "--prompt", "x"]).run == home / "run"
    assert rank.parser().parse_args(["~/run", "--output", "~/out"]).output == home / "out"
    check_arguments("validate", ["--ckpt_path", "~/text.txt", "--config", "~/above.yaml"])


def test_the_places_of_a_run_are_expanded(home: Path) -> None:
    settings: dict[str, Any] = dict.fromkeys(PLACES, "~/x") | {"run.folder": None, "data.path": "~/x"}
    expand_places(settings)
    assert settings == dict.fromkeys(PLACES, f"{home}/x") | {"run.folder": None, "data.path": "~/x"}


def test_an_unknown_user_stays(home: Path) -> None:
    assert local_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_sources_become_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    config = {
        "model": {"backbone": {"path": "model", "name": "a/b"}},
        "data": {"path": {"train": ["rows/*.csv", "s3://bucket/rows.csv"], "test": "~/test.csv"}},
    }
    assert absolute_sources(config) == {
        "model": {"backbone": {"path": f"{home}/model", "name": "a/b"}},
        "data": {"path": {"train": [f"{home}/rows/*.csv", "s3://bucket/rows.csv"], "test": f"{home}/test.csv"}},
    }
    assert config["model"]["backbone"]["path"] == "model"  # the settings of the run stay as they are written
    assert absolute_sources({"data": {"path": None}, "model": None}) == {"data": {"path": None}, "model": None}
    assert absolute("hf://datasets/x") == "hf://datasets/x"


@pytest.mark.parametrize("key", ["forgetting.text", "model.distillation.teacher"])
def test_a_text_and_a_teacher_become_absolute_if_they_are_there(
    key: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "embedded").mkdir()

    def stored(value: str) -> Any:
        settings = {"forgetting": {"text": value}, "model": {"distillation": {"teacher": value}}}
        return flat(absolute_sources(settings))[key]

    assert stored("text.txt") == str(home / "text.txt")
    assert stored("no/such") == "no/such"
    assert stored("embedded") == ("embedded" if key == "forgetting.text" else str(home / "embedded"))
