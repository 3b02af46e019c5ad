"""Runs of a study read the same local rows and weights, and no run of other rows or weights is copied."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.sources import with_sources
from smoa_lightning.ablation.study.study_compatibility import describe_study
from smoa_lightning.common.checksums import read_sealed, write_sealed
from smoa_lightning.common.errors import UserError
from tests.ablation import fake_worker
from tests.ablation.small_study import GRID, study_file, work


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for name in ("rows/train.jsonl", "rows/validation.jsonl", "model/model.safetensors", "text.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}")
    return tmp_path


def do(places: Path, name: str, fit: Callable[..., None] | None = None) -> int:
    """Start or continue a study with local files; return the number of runs that it did."""
    settings = {
        **{"data.source": "local", "data.path": f"{places}/rows", "forgetting.text": f"{places}/text.txt"},
        **{"model.backbone.source": "local", "model.backbone.path": f"{places}/model"},
    }
    folder = places / f"file_{name}"
    folder.mkdir(exist_ok=True)
    text = GRID.replace("name: grid", f"name: {name}") + f"overrides: {json.dumps(settings)}\n"
    done = []

    def count(run, *rest, **more) -> None:  # type: ignore[no-untyped-def]
        done.append(run.name)
        (fit or fake_worker.fit)(run, *rest, **more)

    study = with_sources(load_study([study_file(folder, text)]), places / name)
    write_sealed(places / name / "study.json", describe_study(study))
    work(study, places / name, count).until_done(poll=0.01)
    return len(done)


FILES = ["rows/train.jsonl", "rows/validation.jsonl", "model/model.safetensors", "text.txt"]


@pytest.mark.parametrize("file", FILES)
def test_a_run_of_other_content_is_not_copied(file: str, places: Path) -> None:
    assert do(places, "first") == 12
    assert do(places, "second") == 0
    (places / file).write_text("different")
    assert do(places, "third") == 12


@pytest.mark.parametrize("file", FILES)
def test_a_change_between_two_starts_is_refused_by_name(file: str, places: Path) -> None:
    assert do(places, "first") == 12
    before = (places / file).read_text()
    (places / file).write_text("different")
    with pytest.raises(UserError, match=f"{file} changed after the study began, .*: restore the files, or give"):
        do(places, "first")
    (places / file).write_text(before)  # a new time, and the same content
    assert do(places, "first") == 0


@pytest.mark.parametrize("change", ["added", "removed"])
def test_added_and_removed_files_are_changes(change: str, places: Path) -> None:
    assert do(places, "first") == 12
    file = places / "rows" / ("test.jsonl" if change == "added" else "validation.jsonl")
    file.unlink() if change == "removed" else file.write_text("new")
    (places / "rows" / "README.md").write_text("no rows")
    with pytest.raises(UserError, match=f"rows/{file.name} changed after the study began"):
        do(places, "first")


def test_a_change_between_two_runs_fails_the_later_runs(places: Path) -> None:
    """The record of a run that was done before the change stays."""

    def fit(run, *rest, **more) -> None:  # type: ignore[no-untyped-def]
        fake_worker.fit(run, *rest, **more)
        if run.seed == 1:
            (places / "rows" / "train.jsonl").write_text("different")

    assert do(places, "first", fit) == 2
    logged = (places / "first" / "storage.log").read_text()
    assert logged.count("rows/train.jsonl changed after the study began") >= 10


def test_equal_files_are_read_once(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smoa_lightning.ablation.study import local_files

    assert do(places, "first") == 12
    read: list[Path] = []
    monkeypatch.setattr(local_files, "sha256", lambda file: read.append(file) or "x")
    assert do(places, "first") == 0
    assert read == []
    os.utime(places / "text.txt", (1, 1))
    with pytest.raises(UserError, match=r"text\.txt changed"):
        do(places, "first")
    assert read == [places / "text.txt"]


def test_a_study_of_an_earlier_version_goes_on(places: Path) -> None:
    assert do(places, "first") == 12
    stored = read_sealed(places / "first" / "study.json")
    assert stored is not None
    del stored["contents"]
    write_sealed(places / "first" / "study.json", stored)
    assert do(places, "first") == 0
    (places / "text.txt").write_text("different")
    with pytest.raises(UserError, match=r"text\.txt changed"):
        do(places, "first")
