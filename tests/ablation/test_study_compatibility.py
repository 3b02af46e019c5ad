"""Signatures of runs, whether a folder belongs to a study, and the plan of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.ablation.planning.plan import plan
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.study_compatibility import check_folder, describe_study
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import STUDY

ADAPTER = "model.adapter.init_args"


def test_the_same_run_in_two_studies_has_the_same_signature(made: Any) -> None:
    first = made(axes={"r": [4, 8]}, overrides={"lr": 0.5}, seeds=[1])
    second = made(name="other", axes={"method": {"x": {"lr": 0.5, "r": 8}}}, seeds=[1, 2], keep="none")
    assert second.cells[0].signature == first.cells[1].signature
    assert next(second.final_runs()).signature == list(first.final_runs())[1].signature
    assert len({run.signature for run in [*first.final_runs(), *second.final_runs()]}) == 3


def test_the_signature_depends_on_the_content_of_the_base(tmp_path: Path) -> None:
    study, base = tmp_path / "study.yaml", tmp_path / "base.yaml"
    study.write_text("base: base.yaml\naxes: {batch_size: [4]}\n")
    found = []
    for text in ("data: {task: piqa}", "# a comment\ndata.task: piqa\nrun: {root: x}\n", "data: {task: boolq}"):
        base.write_text(f"{text}\nmodel.adapter: null\n")
        found.append(load_study([study]).cells[0].signature)
    assert found[0] == found[1] != found[2]


GRID: dict[str, Any] = {"axes": {"r": [4, 8]}, "seeds": 2, "baseline": {"r": 4}}
SEARCH = {"parameters": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}}, "trials": 3}
MAY_CHANGE: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"axes": {"r": [8, 4]}}, []),
    ({"seeds": 3}, ["new seeds: 2"]),
    ({"seeds": 1}, ["fewer seeds: the report leaves out 1; finished runs stay in the folder"]),
    ({"seeds": [1, 5]}, ["new seeds: 5", "fewer seeds: the report leaves out 0; finished runs stay in the folder"]),
    ({"axes": {"r": [4, 8, 16]}}, ["new cells: r=16"]),
    ({"baseline": {"r": 8}}, ['baselines was ["r=4"] and is ["r=8"]']),
    ({"keep": "none", "retries": 3}, ["retries was 1 and is 3", 'keep was "best" and is "none"']),
]
MAY_NOT: list[tuple[dict[str, Any], str]] = [
    (
        {"axes": {"r": [4, 8], "lr": [0.02]}, "baseline": {"r": 4}},
        "its cell r=4 has the name r=4,lr=0.02 in this study",
    ),
    ({"name": "other"}, "its name is 'study', but this study is 'other'"),
    ({"axes": {"r": [4]}}, "its cell r=8 is not in this study"),
    (
        {"overrides": {"lr": 0.5}},
        "lr of cell r=4 was 0.02 and is 0.5 (first of 2 differences); choose a different --folder",
    ),
    ({"overrides": {"data.packing": True}}, "data.packing of cell r=4 was not set and is true"),
    ({"search": SEARCH}, "it has no search, but this study has one"),
]


@pytest.mark.parametrize(("change", "expected"), MAY_CHANGE, ids=str)
def test_a_study_may_change_in_its_folder(
    change: dict[str, Any], expected: list[str], made: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    assert check_folder(folder, made(**GRID)) == []
    folder.mkdir()
    (folder / STUDY).write_text(json.dumps(describe_study(made(**GRID))))
    assert check_folder(folder, made(**GRID | change)) == expected


@pytest.mark.parametrize(("change", "words"), MAY_NOT, ids=lambda v: str(v)[:60])
def test_a_folder_of_another_study_is_refused(change: dict[str, Any], words: str, made: Any, tmp_path: Path) -> None:
    (tmp_path / STUDY).write_text(json.dumps(describe_study(made(**GRID))))
    with pytest.raises(UserError) as refused:
        check_folder(tmp_path, made(**GRID | change))
    assert f"the folder {tmp_path} has a different study: " in str(refused.value)
    assert words in str(refused.value)


def test_a_search_may_get_more_trials_and_other_seeds_and_nothing_else(made: Any, tmp_path: Path) -> None:
    content = GRID | {"search": SEARCH}
    (tmp_path / STUDY).write_text(json.dumps(describe_study(made(**content))))
    assert check_folder(tmp_path, made(**GRID | {"search": SEARCH | {"trials": 5}})) == ["search.trials was 3 and is 5"]
    (change,) = check_folder(tmp_path, made(**GRID | {"search": SEARCH | {"seeds": 2}}))
    assert change.startswith("search.seeds was [1000] and is [1000, 1001]: the same trials")
    rewritten = {"parameters": {"model.optimizer.lr": {"log": True, "high": 0.1, "low": 0.001}}, "trials": 3}
    assert check_folder(tmp_path, made(**GRID | {"search": rewritten | {"sampler": {"name": "tpe"}}})) == []
    for change in ({"trials": 2}, {"sampler": "random"}, {"pruner": "median"}, {"objective": "nll"}):
        with pytest.raises(UserError, match=rf"has a different study: search\.{next(iter(change))} was"):
            check_folder(tmp_path, made(**GRID | {"search": SEARCH | change}))


def test_folders_without_a_study(made: Any, tmp_path: Path) -> None:
    study = made(**GRID)  # writes study.yaml there
    with pytest.raises(UserError, match="is not empty, but has no study"):
        check_folder(tmp_path, study)
    (tmp_path / STUDY).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        check_folder(tmp_path, study)
    (tmp_path / STUDY).write_text('{"format": 0}')
    with pytest.raises(UserError, match="a different version wrote the folder"):
        check_folder(tmp_path, study)


def test_a_plan_has_the_cells_and_their_different_settings(made: Any) -> None:
    planned = plan(made(**GRID, budget=None, drop=[{"r": 16}]))
    assert [(row.cell, row.settings, row.baseline, row.metric) for row in planned.rows] == [
        ("r=4", {f"{ADAPTER}.r": 4}, "r=4", "acc"),
        ("r=8", {f"{ADAPTER}.r": 8}, "r=4", "acc"),
    ]
    assert planned.shared["data.task"] == "piqa"
    assert (planned.runs, planned.seeds, planned.trials, planned.direction) == (4, (0, 1), 0, "maximize")
