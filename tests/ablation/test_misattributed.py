"""Settings and scores that a study must not attribute to the wrong cell, size or seed."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.folder import read_study, same_rows
from smoa_lightning.ablation.study.base_model import base_seeds, scored_with
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.study_compatibility import check_unchanged, describe_study
from smoa_lightning.commands.ablate import main as ablate
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.hparams import mean_metrics
from tests.ablation.made_study import CELLS, make_study
from tests.ablation.small_study import GRID, SEARCH, study_file, work

from ..conftest import EXPERIMENTS

NAMES = list(CELLS)


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# ------------------------------------------------------------------------------------------------------ contrasts


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (3, 2), (6, 4), (1, 6)], ids=str)
def test_sides_with_the_same_answers_do_not_differ(sizes: tuple[int, int], grouped: bool, tmp_path: Path) -> None:
    """1/3 + 1/3 + 1/3 - 1/2 - 1/2 is not 0 in floating point, and this rounding is no difference."""
    cells = {f"m=c{n}": CELLS["method=lora"] | {"labels": {"m": f"c{n}"}} for n in range(sum(sizes))}
    make_study(tmp_path, cells, items=40)
    first = next(iter(cells))
    for name, seed in itertools.product(cells, range(3)):
        source, copy = (tmp_path / "runs" / f"{cell},seed={seed}" for cell in (first, name))
        items = [json.loads(line) for line in source.joinpath("items.jsonl").read_text().splitlines()]
        items = [item | ({"group": item["row"] // 3} if grouped else {}) for item in items]
        copy.joinpath("items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    above, below = list(cells)[: sizes[0]], list(cells)[sizes[0] :]
    weights = dict.fromkeys(above, 1 / sizes[0]) | dict.fromkeys(below, -1 / sizes[1])
    edit(tmp_path, contrasts={"x": {"above": "a", "below": "b", "weights": weights, "cells": list(cells)}})
    (contrast,) = analyse(read_study(tmp_path)).contrasts
    assert contrast.difference.value == pytest.approx(0, abs=1e-12)
    assert contrast.adjusted == 1
    assert contrast.difference.n_groups == (14 if grouped else None)
    assert not contrast.verdict.established


# ---------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("budget", ["50k", None])
@pytest.mark.parametrize(
    "keys",
    [
        {"axes": {"r": [2, 4]}},
        {"axes": {"data.seed": [0, 1]}, "overrides": {"r": 2}},
        {"axes": {"data.seed": [0]}, "search": {"parameters": {"r": {"choices": [2, 4]}}, "trials": 2}},
    ],
    ids=["axis", "override", "search"],
)
def test_a_budget_in_a_file_decides_no_size_that_the_study_sets(
    keys: dict[str, Any], budget: str | None, tmp_path: Path
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({"base": str(EXPERIMENTS / "piqa.yaml"), "model": {"budget": budget}}))
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"base": [str(base)], **keys}))
    if budget is None:
        assert load_study([file]).cells
        return
    with pytest.raises(UserError, match=r"sets model\.adapter\.init_args\.r, but a file sets model\.budget to 50k"):
        load_study([file])
    keys = keys | {"overrides": {**keys.get("overrides", {}), "model.budget": None}}
    file.write_text(yaml.safe_dump({"base": [str(base)], **keys}))
    assert load_study([file]).cells


# ----------------------------------------------------------------------------------------------------- base model


@pytest.mark.parametrize("given", [True, False])
def test_a_study_decides_which_run_scores_the_base_model(given: bool, made: Any) -> None:
    with pytest.raises(UserError, match=r"run\.score_base.*one run scores the base model"):
        made(axes={"r": [2]}, overrides={"run.score_base": given})


@pytest.mark.parametrize(
    ("task", "overrides", "seeds"),
    [
        ("cola", {}, (0, 1, 2)),
        ("stsb", {}, (0, 1, 2)),
        ("cola", {"model.adapter_seed": 4}, (0,)),
        ("image_classification", {"model.head_init": "a photo of a {}"}, (0,)),
        ("piqa", {"model.adapter_seed": None}, (0,)),
    ],
)
def test_a_new_head_follows_the_seed(task: str, overrides: dict[str, Any], seeds: tuple[int, ...], made: Any) -> None:
    overrides = {"data.task": task, "data.protocol": None, "forgetting.text": None, **overrides}
    study = made(axes={"r": [2, 4]}, seeds=3, overrides=overrides)
    assert {base_seeds(study, cell) for cell in study.cells} == {seeds}


@pytest.mark.parametrize(
    ("axis", "shared"),
    [
        ({"forgetting.max_length": [64, 512]}, False),
        ({"forgetting.batch_tokens": [64, 512]}, True),
        ({"trainer.precision": ["32-true", "bf16-mixed"]}, False),
        ({"model.adapter_seed": [1, 2]}, True),
    ],
    ids=str,
)
def test_what_decides_the_scores_of_the_base_model(axis: dict[str, Any], shared: bool, made: Any) -> None:
    assert (len(set(scored_with(made(axes=axis)).values())) == 1) == shared


def test_cells_with_other_base_models_may_have_the_same_rows(made: Any) -> None:
    described = describe_study(made(axes={"trainer.precision": ["32-true", "bf16-mixed"]}))
    assert len(set(described["untouched"].values())) == 2
    assert len(set(same_rows(described).values())) == 1
    assert len(set(same_rows(describe_study(made(axes={"data.task": ["piqa", "boolq"]}))).values())) == 2
    del described["rows"]  # as in earlier versions
    assert same_rows(described) == described["untouched"]


def test_heads_of_two_seeds_are_two_base_models(made: Any) -> None:
    overrides = {"data.task": "cola", "forgetting.text": None}
    assert len(set(scored_with(made(axes={"model.adapter_seed": [1, 2]}, overrides=overrides)).values())) == 2


def test_each_seed_of_a_new_head_is_compared_with_its_own_base_model(tmp_path: Path) -> None:
    scores = make_study(tmp_path, CELLS, fewshot=True)  # every run of the baseline has scored a base model
    described = json.loads((tmp_path / "study.json").read_text())
    for cell in described["cells"].values():
        cell["settings"]["data"] = {"task": "cola"}
    edit(tmp_path, cells=described["cells"])
    for file in tmp_path.glob("runs/*/record.json"):
        record = json.loads(file.read_text())
        record["data"]["protocol"] = "classification"
        file.write_text(json.dumps(record))
    for gain in analyse(read_study(tmp_path)).gains:
        assert gain.difference.value == pytest.approx((scores[gain.cell] - scores["base model"]).mean())
        assert gain.pooled is not None
        assert gain.pooled.cells == 4  # the base model varies over seeds too


def test_another_baseline_keeps_the_scores_of_the_base_model(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS)
    before = {gain.cell: gain.difference for gain in analyse(read_study(tmp_path)).gains}
    edit(tmp_path, baselines=dict.fromkeys(NAMES, NAMES[1]), untouched=dict.fromkeys(NAMES, NAMES[1]))
    assert {gain.cell: gain.difference for gain in analyse(read_study(tmp_path)).gains} == before


# -------------------------------------------------------------------------------------------------------- metrics


def test_a_metric_that_is_secondary_for_some_cells_only_has_all_cells(tmp_path: Path) -> None:
    """Without an objective, a study of two tasks has two primary metrics, and one may be secondary for the others."""
    make_study(tmp_path, CELLS)
    described = json.loads((tmp_path / "study.json").read_text())
    described["cells"][NAMES[0]]["report_metric"] = "acc_norm"
    for file in tmp_path.glob(f"runs/{NAMES[0]},*/record.json"):
        record = json.loads(file.read_text())
        record["metrics"] |= {key.replace("acc", "acc_norm"): value for key, value in record["metrics"].items()
                              if key.endswith(("/acc", "/acc_stderr"))}  # fmt: skip
        file.write_text(json.dumps(record))
    edit(tmp_path, cells=described["cells"], secondary=["acc"], objective={"metric": None, "direction": "maximize"})
    study = read_study(tmp_path)
    assert {cell: len(runs) for cell, runs in study.by_metric("acc").runs.items()} == dict.fromkeys(NAMES, 3)
    assert not study.damaged


def test_cells_with_other_texts_are_not_compared_by_them(made: Any) -> None:
    axes = {"forgetting.max_length": [64, 128]}
    made(axes=axes)
    with pytest.raises(UserError, match=r"general_nll cannot be compared, since forgetting\.max_length is 64 in"):
        made(axes=axes, secondary=["general_nll"])
    made(axes={"data.task": ["piqa", "boolq"]}, secondary=["general_nll"])
    default = {"forgetting.text": "embedded", "forgetting.max_documents": 200}
    made(axes={"v": [{"a": {"lr": 0.01}}, {"b": {"lr": 0.02, **default}}]}, secondary=["general_nll"])


def test_a_trade_off_needs_scores_of_items(made: Any) -> None:
    keys = {"axes": {"lr": [1e-3, 1e-2], "r": [2, 4]}, "objective": "nll", "secondary": ["general_perplexity"]}
    with pytest.raises(UserError, match=r"general_perplexity, which has no score for each item.*such as general_nll"):
        made(**keys, trade_off={"cost": "general_perplexity", "at": "nll", "along": "lr"})


def test_costs_that_were_not_measured_are_no_part_of_a_mean() -> None:
    means = mean_metrics([{"cost/peak_memory_mb": -1.0}, {"cost/peak_memory_mb": 900.0}])
    assert 900.0 in means.values()
    assert set(mean_metrics([{"cost/peak_memory_mb": -1.0}]).values()) == {-1.0}


# ------------------------------------------------------------------------------------------------------- searches


def test_a_few_trials_of_a_grid_are_no_corner_of_it(tmp_path: Path) -> None:
    search = (
        "search:\n  parameters:\n    lr: {choices: [0.0001, 0.001, 0.01, 0.1]}\n"
        "    warmup: {choices: [0.0, 0.1, 0.2]}\n"
        "  objective: acc\n  sampler: grid\n  trials: 6\n"
    )
    study = load_study([study_file(tmp_path, GRID + search)])
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    found = json.loads((tmp_path / "out" / "trials.json").read_text())["searches"]
    points = [[tuple(trial["parameters"].values()) for trial in found[cell.name]["trials"]] for cell in study.cells]
    assert all(set(each) == set(points[0]) and len(set(each)) == 6 for each in points)  # equal for all cells
    assert len({point[0] for point in points[0]}) >= 3
    assert len({point[1] for point in points[0]}) == 3


@pytest.mark.parametrize("flag", [("search.trials", "6"), ("seeds", "5"), ("search.objective", "nll")])
def test_a_worker_refuses_a_study_that_changed_after_its_start(flag: tuple[str, str], tmp_path: Path) -> None:
    file, folder = study_file(tmp_path, GRID + SEARCH), tmp_path / "out"
    study = load_study([file])
    open_storage(None, folder)
    write_sealed(folder / "study.json", describe_study(study))
    check_unchanged(study, folder)
    changes: list[dict[str, Any]] = [{"retries": 5}, {"margins": {"acc": 1.0}}, {"secondary": ("nll",)}]
    for change in changes:  # no run depends on them
        check_unchanged(dataclasses.replace(study, **change), folder)
    with pytest.raises(UserError, match=r"changed after its start|has a different study"):
        check_unchanged(load_study([file], [flag]), folder)
    given = ["--config", str(file), f"--{flag[0]}={flag[1]}", "--folder", str(folder), "--worker_number", "0"]
    with pytest.raises(UserError, match=r"changed after its start|has a different study"):
        ablate(given)
    assert not list(folder.glob("runs/*"))
