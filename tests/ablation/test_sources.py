"""The sources of a study are decided once, so that no cell mixes runs on the hub's files with embedded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.ablation.study import sources
from smoa_lightning.ablation.study.sources import lines, with_sources
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.ablation.study.study_compatibility import check_folder, describe_study
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import STUDY

COMMIT, LATER = "a" * 40, "b" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hub that answers, or not, and whose branches move on."""
    state: dict[str, Any] = {"answers": True, "commit": COMMIT}

    def resolve(requested: str, *rest: Any) -> str:
        if requested == "hub" and not state["answers"]:
            raise UserError("the hub does not answer")
        return requested if requested != "auto" else "hub" if state["answers"] else "embedded"

    def commit(name: str, kind: str, revision: str | None) -> str:
        return revision if revision is not None and len(revision) == 40 else state["commit"]

    monkeypatch.setattr(sources, "resolve_source", resolve)
    monkeypatch.setattr(sources, "commit_of", commit)
    return state


def flags(study: Study) -> list[dict[str, Any]]:
    return [{k: v for k, v in cell.flags.items() if "source" in k or "revision" in k} for cell in study.cells]


def begin(study: Study, folder: Path) -> Study:
    study = with_sources(study, folder)
    write_sealed(folder / STUDY, describe_study(study))
    return study


def test_the_decision_is_kept_whatever_the_hub_does_later(made: Any, hub: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    study = made(axes={"r": [4, 8]}, baseline={"r": 4}, seeds=1)
    online = begin(study, folder)
    expected = {"model.backbone.source": "hub", "model.backbone.revision": COMMIT, "data.source": "hub"}
    assert flags(online) == [expected, expected]  # the task pins the commit of its rows
    assert all(f"--model.backbone.revision={COMMIT}" in run.arguments for run in online.final_runs())
    for hub["answers"], hub["commit"] in ((False, LATER), (True, LATER), (True, COMMIT)):
        again = with_sources(study, folder)
        assert [run.signature for run in again.final_runs()] == [run.signature for run in online.final_runs()]
        assert check_folder(folder, again) == []
    assert f"commit {COMMIT[:12]}" in lines(online.sources)[0]


def test_studies_with_different_sources_share_no_run(made: Any, hub: dict[str, Any], tmp_path: Path) -> None:
    study = made(axes={"r": [4, 8]}, baseline={"r": 4}, seeds=1)
    seen = []
    for number, (hub["answers"], hub["commit"]) in enumerate(((True, COMMIT), (True, LATER), (False, None))):
        seen += [run.signature for run in begin(study, tmp_path / str(number)).final_runs()]
    assert len(set(seen)) == 6


def test_a_study_of_an_earlier_version_keeps_its_signatures(made: Any, hub: dict[str, Any], tmp_path: Path) -> None:
    study = made(axes={"r": [4, 8]}, baseline={"r": 4}, seeds=1)
    write_sealed(tmp_path / "old" / STUDY, describe_study(study))
    again = with_sources(study, tmp_path / "old")
    assert again is study
    assert check_folder(tmp_path / "old", again) == []


def test_named_sources_stay(made: Any, hub: dict[str, Any], tmp_path: Path) -> None:
    """A study on embedded or local files has the signatures of earlier versions; another commit of rows is pinned."""
    embedded = made(axes={"r": [4]}, overrides={"model.backbone.source": "embedded", "data.source": "embedded"})
    assert with_sources(embedded, tmp_path / "a").cells == embedded.cells
    other = {"data.source": "hub", "data.repository": "me/rows", "model.backbone.source": "embedded"}
    study = with_sources(made(axes={"r": [4]}, overrides=other), tmp_path / "b")
    assert flags(study)[0] | other == {**other, "data.revision": COMMIT}
    hub["answers"] = False
    with pytest.raises(UserError, match="does not answer"):
        with_sources(made(axes={"r": [4]}, overrides=other), tmp_path / "c")


def test_cells_that_become_the_same_are_refused(made: Any, hub: dict[str, Any], tmp_path: Path) -> None:
    study = made(axes={"model.backbone.source": ["auto", "hub"]})
    with pytest.raises(UserError, match="have the same sources and settings: drop one of them"):
        with_sources(study, tmp_path / "out")
