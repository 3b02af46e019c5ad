"""``ablate --plan``: how scores vary in finished runs, and which differences a study detects."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from smoa_lightning.ablation.planning import finished_runs
from smoa_lightning.ablation.planning.detectable import detectable, detectable_lines
from smoa_lightning.ablation.planning.plan import plan
from smoa_lightning.ablation.planning.plan_table import render
from smoa_lightning.ablation.planning.variation import Variation, variations
from smoa_lightning.ablation.statistics import (
    PlannedTest,
    assumed_variances,
    detectable_difference,
    mean_squares,
    variances_of,
)
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.ablation.study.study_compatibility import describe_study
from tests.ablation.finished import finish, measured


def answered(study: Study, folder: Path, rows: int = 40) -> dict[tuple[str, int], np.ndarray]:
    """Write finished runs of all cells and seeds with random answers; return the answers."""
    rng, answers = np.random.default_rng(0), {}
    for cell in study.cells:
        for seed in study.seeds:
            answers[cell.name, seed] = right = rng.random(rows) < 0.6
            finish(folder, study.final_run(cell, seed), 1.0, float(right.mean()), right.tolist())
    return {place: right.astype(float) for place, right in answers.items()}


def pairs_of(answers: dict[tuple[str, int], np.ndarray], *cells: str) -> list[Any]:
    """Return the mean squares of each cell's differences from r=4, with the numbers of seeds and items."""
    tables = [np.array([answers[cell, s] - answers["r=4", s] for s in (0, 1)]) for cell in cells]
    return [(mean_squares(table), *table.shape) for table in tables]


def varies(study: Study, folder: Path) -> dict[str, Variation]:
    return variations(study, folder, finished_runs.read_finished(study, folder))


def planned(study: Study, folder: Path, rows: int = 40) -> str:
    """Return what the plan of a study says about differences, for cells with an expected accuracy of .6."""
    found = varies(study, folder)
    costs: Any = [
        SimpleNamespace(cell=cell.name, work=SimpleNamespace(report_rows=rows), variation=found[cell.name],
                        accuracy=0.6 if cell.report_metric == "acc" else None, accuracy_source="expected")
        for cell in study.cells
    ]  # fmt: skip
    return "\n".join(detectable_lines(plan(study), costs))


def test_each_metric_has_its_own_variances(make: Callable[..., Study], tmp_path: Path) -> None:
    study, folder = make({"r": [4, 2, 8, 16]}, baseline={"r": 4}, seeds=[0, 1, 2]), tmp_path / "study"
    metrics = {"r=8": "perplexity", "r=16": "perplexity"}
    cells = tuple(replace(cell, report_metric=metrics.get(cell.name, "acc")) for cell in study.cells)
    study = replace(study, cells=cells, baselines={"r=4": "r=4", "r=2": "r=4", "r=8": "r=8", "r=16": "r=8"})
    answers = answered(study, folder)
    found = varies(study, folder)
    table = np.array([answers["r=2", s] - answers["r=4", s] for s in (0, 1, 2)])
    assert found["r=2"].variances == variances_of([(mean_squares(table), *table.shape)])
    assert found["r=4"] == found["r=2"]
    assert found["r=2"].source == "from 6 finished runs of 2 cells"
    assert found["r=8"] == Variation()
    text = planned(study, folder)
    assert "difference from r=8: not computed, since perplexity is not an accuracy" in text
    assert "uses variances over seeds and items from 6 finished runs of 2 cells" in text


def test_each_task_has_its_own_variances(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make({"task": ["piqa", "boolq"], "r": [4, 2]}, baseline={"r": 4}, seeds=[0, 1])
    answers = answered(study, tmp_path / "study")
    found = varies(study, tmp_path / "study")
    for task in ("piqa", "boolq"):
        cells = [f"r={r},task={task}" for r in (2, 4)]
        table = np.array([answers[cells[0], s] - answers[cells[1], s] for s in (0, 1)])
        for cell in cells:
            assert found[cell].variances == variances_of([(mean_squares(table), *table.shape)])
            assert found[cell].source == f"from 4 finished runs of 2 cells like r=4,task={task}"


@pytest.mark.parametrize("groups", [False, True])
def test_runs_that_do_not_show_how_scores_vary_leave_the_plan_as_it_was(
    make: Callable[..., Study], tmp_path: Path, groups: bool
) -> None:
    """All cells have the same answers, or all rows are one group: the plan has assumed variances."""
    study, folder = make({"r": [2, 4]}, seeds=[0, 1, 2], margin=50), tmp_path / "study"
    if groups:
        answered(study, folder)
        for file in folder.glob("runs/*/items.jsonl"):
            lines = [json.loads(line) | {"group": 0} for line in file.read_text().splitlines()]
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        for cell in study.cells:
            for seed in study.seeds:
                finish(folder, study.final_run(cell, seed), 1.0, 0.5, [True, False] * 20)
    assert varies(study, folder)["r=2"] == Variation()
    text = planned(study, folder)
    assert "two finished seeds each whose answers differ" in text
    assert "the margin of 50 points: this study detects a difference of this size" in text


def test_secondary_metrics_have_their_own_lines(make: Callable[..., Study], tmp_path: Path) -> None:
    keys: Any = {"objective": "acc", "secondary": ["acc_norm", "nll"], "margin": {"acc_norm": 80, "nll": 0.01}}
    study, folder = make({"r": [2, 4]}, seeds=[0, 1, 2], **keys), tmp_path / "study"
    answered(study, folder)
    for file in folder.glob("runs/*/items.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [line | {"prediction_acc_norm": line["prediction_acc"]} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = planned(study, folder).splitlines()
    acc, norm = (next(line for line in lines if f" of {name}, with" in line) for name in ("acc", "acc_norm"))
    assert norm == acc.replace("of acc,", "of acc_norm,")  # the answers are the same by both
    after = lines[lines.index(norm) + 1]
    assert after == "the margin of 80 points: this study detects a difference of this size"
    assert lines[-1] == "the margin of 0.01 of nll: no finished runs show how it varies"


def test_general_text_has_its_own_number_of_items(make: Callable[..., Study], tmp_path: Path) -> None:
    keys: Any = {"objective": "acc", "secondary": ["general_nll"], "margin": {"general_nll": 0.5}, "seeds": [0, 1, 2]}
    study = make({"r": [4, 2]}, overrides={"forgetting.text": "embedded"}, **keys)
    folder = tmp_path / "study"
    answered(study, folder)
    assert planned(study, folder).splitlines()[-1].endswith("of general_nll: no finished runs show how it varies")
    rng, scores = np.random.default_rng(1), {}
    for cell in study.cells:
        for seed in study.seeds:
            scores[cell.name, seed] = nll = rng.normal(3, 0.1, 7)
            lines = [{"row": row, "text_nll": 10 * value, "tokens": 10} for row, value in enumerate(nll.tolist())]
            place = folder / "runs" / study.final_run(cell, seed).name / "general_items.jsonl"
            place.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = np.array([scores["r=2", s] - scores["r=4", s] for s in study.seeds])
    variances = variances_of([(mean_squares(table), *table.shape)])
    expected = detectable_difference(3, 7, variances, PlannedTest(comparisons=1, cells=2))
    *_, line, margin = planned(study, folder).splitlines()
    assert f": {expected:.3g} of general_nll, with 3 seeds, 7 documents and 1 comparison " in line
    assert margin == "the margin of 0.5: this study detects a difference of this size"
    main = make({"r": [4, 2]}, overrides={"forgetting.text": "embedded"}, objective="general_nll", seeds=[0, 1, 2])
    assert line.partition(" of general_nll")[0] in planned(main, folder)  # also as the metric of the study
    (tmp_path / "study" / "study.json").write_text(json.dumps(describe_study(study)))
    for more, documents in (({}, 7), ({"forgetting.max_length": 64}, 0)):  # another study reads the same text or not
        other = make({"r": [4, 2]}, overrides={"forgetting.text": "embedded", **more}, **keys)
        assert varies(other, tmp_path / "other")["r=2"].secondary["general_nll"].documents == documents


def test_two_seeds_detect_no_margin(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make({"r": [2, 4]}, seeds=[0, 1], margin=50)
    answered(study, tmp_path / "study", rows=400)
    text = planned(study, tmp_path / "study", rows=400)
    assert "the study has no baseline, so the report tests no cell against another one" in text
    assert "smallest difference between r=2 and another cell that is detected" in text
    assert "with 2 seeds the report establishes no difference: plan at least 3 seeds" in text
    assert text.count("the margin of 50 points: a difference of this size needs 3 seeds with 400 items\n") == 1
    assert "this study detects" not in text


def test_the_detectable_difference_is_that_of_the_plan(make: Callable[..., Study], tmp_path: Path) -> None:
    study, folder = make({"r": [2, 4, 8]}, baseline={"r": 4}, seeds=[0, 1], margin=2), tmp_path / "study"
    answers = answered(study, folder)
    costs = measured(study, folder)
    variances = variances_of(pairs_of(answers, "r=2", "r=8"))
    assert costs[0].variation.variances == variances
    expected = detectable_difference(2, 24, variances, PlannedTest(comparisons=2, cells=3))
    found = detectable(plan(study), costs)
    assert found.keys() == {"r=4"}
    assert found["r=4"] is not None
    assert expected is not None
    assert found["r=4"].difference == pytest.approx(expected)
    text = " ".join(render(plan(study), costs, width=120).split())
    assert f"{100 * expected:.1f} points of acc, with 2 seeds, 24 items and 2 comparisons" in text
    assert "variances over seeds and items from 6 finished runs of 3 cells" in text
    assert "the margin of 2 points: " in text


def test_variances_come_from_another_study_of_the_same_root(make: Callable[..., Study], tmp_path: Path) -> None:
    other = make({"r": [2, 4]}, baseline={"r": 4}, seeds=[0, 1])
    answers = answered(other, tmp_path / "other")
    (tmp_path / "other" / "study.json").write_text(json.dumps(describe_study(other)))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.json").write_text("{}")
    study = make({"r": [6, 8]}, baseline={"r": 6}, seeds=[5, 6, 7])
    found = varies(study, tmp_path / "study")["r=6"]
    assert found.variances == variances_of(pairs_of(answers, "r=2"))
    assert found.source == "from finished runs of the study tiny"
    elsewhere = make({"r": [6, 8]}, overrides={"model.backbone.dtype": "bfloat16"})
    found = varies(elsewhere, tmp_path / "study")["r=6"]
    assert found.variances is None
    assert found.of(None, 300) is None
    assert found.of(0.99, 300) == assumed_variances(300, 0.95, 0.01, 0.5)


def test_the_plan_says_what_is_assumed_or_not_computed(make: Callable[..., Study], tmp_path: Path) -> None:
    study, folder = make({"r": [2, 4]}, objective="nll"), tmp_path / "study"
    for cell in study.cells:
        finish(folder, study.final_run(cell, 0), 1.0)
    text = " ".join(render(plan(study), measured(study, folder), width=120).split())
    assert "not computed, since nll is not an accuracy and no finished runs show how it varies" in text
    study = make({"r": [2, 4]}, seeds=[7])
    for cell in study.cells:
        finish(folder, study.final_run(cell, 7), 1.0)
    text = " ".join(render(plan(study), measured(study, folder), width=120).split())
    assert "one seed cannot establish a difference between r=2 and another cell" in text
    assert "assumed, since no study in this root has two cells with two finished seeds each" in text
