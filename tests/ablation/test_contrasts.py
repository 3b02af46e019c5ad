"""Planned contrasts and margins: read from study files, and computed from runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.contents import contents
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.summary import headline
from smoa_lightning.ablation.statistics import (
    crossed_difference,
    grid_effects,
    paired_difference,
    pooled_for_differences,
)
from smoa_lightning.ablation.study.study_compatibility import compare_descriptions, describe_study
from smoa_lightning.commands.report import write_report
from smoa_lightning.common.errors import UserError

from .made_study import make_study

AXES = {"partition": ["none", "spectral_blocks"], "r": [4, 8, 16], "num_subspaces": [1, 2]}
DROP = [{"partition": "none", "num_subspaces": ">1"}]


# ---------------------------------------------------------------------------------------------------------- study files


def test_two_sides_are_means_over_all_other_axes(made: Any) -> None:
    study = made(axes=AXES, drop=DROP, contrasts={"subspaces": {"partition": ["spectral_blocks", "none"]}})
    (contrast,) = study.contrasts
    assert (contrast.above, contrast.below) == ("partition=spectral_blocks", "partition=none")
    assert set(contrast.cells) == {cell.name for cell in study.cells}
    expected = {cell.name: -1 / 3 if cell.labels["partition"] == "none" else 1 / 6 for cell in study.cells}
    assert contrast.weights == pytest.approx(expected)


def test_a_trend_is_the_slope_of_least_squares_with_other_axes_fixed(made: Any) -> None:
    study = made(axes=AXES, drop=DROP, contrasts={"rank": {"r": "log"}, "number": {"num_subspaces": "linear"}})
    rank, number = study.contrasts
    y = np.random.default_rng(0).normal(size=len(study.cells))
    scores = dict(zip([cell.name for cell in study.cells], y, strict=True))
    others = [f"{cell.labels['partition']} {cell.labels['num_subspaces']}" for cell in study.cells]
    design = np.column_stack([np.log2([cell.values["r"] for cell in study.cells]),
                              *([other == each for other in others] for each in dict.fromkeys(others))])  # fmt: skip
    slope = np.linalg.lstsq(design.astype(float), y, rcond=None)[0][0]
    assert sum(w * scores[name] for name, w in rank.weights.items()) == pytest.approx(slope)
    assert (rank.above, rank.below) == ("2 x r", "r")
    # the number of subspaces changes in the blocks only
    assert {name.partition(",")[0] for name in number.weights} == {"partition=spectral_blocks"}
    rest = [f"{cell.labels['partition']} {cell.labels['r']}" for cell in study.cells]
    levels = {"k": [cell.values["num_subspaces"] for cell in study.cells], "rest": rest}
    effects = grid_effects(y, levels, [0] * len(y), interactions=False)
    assert sum(w * scores[n] for n, w in number.weights.items()) == pytest.approx(effects.levels[0].value)


def test_a_contrast_of_some_cells_and_of_axes_that_change_together(made: Any) -> None:
    study = made(axes={"r": [4, 8], "alpha": [8, 16], "partition": ["none", "spectral_blocks"]}, zip=[["r", "alpha"]],
                 contrasts={"rank": {"r": "log", "partition": "none"}})  # fmt: skip
    (contrast,) = study.contrasts
    assert contrast.weights == pytest.approx({"r=4,alpha=8,partition=none": -1, "r=8,alpha=16,partition=none": 1})
    assert (contrast.above, contrast.below) == ("2 x r (partition=none)", "r (partition=none)")


def test_labels_with_numbers_have_a_trend(made: Any) -> None:
    sizes = [{"small": {"r": 2}}, {"other": {"r": 3}}, {"middle": {"r": 4}}, {"large": {"r": 16}}]
    numbers = {"small": 2, "middle": 4, "large": 16}
    study = made(axes={"size": sizes}, contrasts={"rank": {"size": {"log": numbers}}})
    (contrast,) = study.contrasts
    x = np.log2(list(numbers.values()))
    expected = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    assert contrast.weights == pytest.approx(dict(zip((f"size={n}" for n in numbers), expected, strict=True)))
    assert len(contrast.cells) == 4  # the seed variance is that of all cells
    assert contrast.above == "2 x size (small: 2, middle: 4, large: 16)"
    for wrong, words in (({"log": 2}, "must be like"), ({"log": {"big": 2}}, "no value 'big'"),
                         ({"log": {"small": "x", "large": 2}}, "a trend needs numbers, but size has x")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            made(axes={"size": sizes}, contrasts={"rank": {"size": wrong}})


def test_a_contrast_names_the_cells_that_are_left(made: Any) -> None:
    """A piece of a study leaves cells out, and the contrasts of the whole study stay declared."""
    contrasts = {"high": {"r": [[8, 16, 32], 4]}, "trend": {"r": {"log": {4: 4, 8: 8, 16: 16, 32: 32}}}}
    high, trend = made(axes={"r": [4, 8, 16, 32]}, drop=[{"r": 16}], contrasts=contrasts).contrasts
    assert (high.above, high.below, high.weights) == ("r=8+32", "r=4", {"r=4": -1, "r=8": 0.5, "r=32": 0.5})
    assert trend.below == "r (4: 4, 8: 8, 32: 32)"
    piece, whole = (
        describe_study(made(axes={"r": [4, 8, 16, 32]}, drop=drop, contrasts=contrasts)) for drop in ([{"r": 16}], None)
    )
    assert not [change for change in compare_descriptions(piece, whole, "x") if "contrasts" in change]
    for contrast in piece["contrasts"].values():
        contrast.pop("declared")  # as earlier versions wrote it: with the names of all sides
    piece["contrasts"]["high"]["above"], piece["contrasts"]["trend"]["below"] = (
        "r=8+16+32",
        "r (4: 4, 8: 8, 16: 16, 32: 32)",
    )
    piece["contrasts"]["trend"]["above"] = "2 x r (4: 4, 8: 8, 16: 16, 32: 32)"
    assert not [change for change in compare_descriptions(piece, whole, "x") if "contrasts" in change]


def test_each_set_of_rows_has_its_own_contrast(made: Any) -> None:
    study = made(axes={"data.task": ["piqa", "boolq"], "r": [4, 8]}, contrasts={"rank": {"r": [8, 4]}})
    assert [each.name for each in study.contrasts] == ["rank, task=piqa", "rank, task=boolq"]
    assert study.contrasts[1].weights == {"task=boolq,r=8": 1, "task=boolq,r=4": -1}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"contrasts": [1]}, "contrasts must be names with axes, such as"),
        ({"contrasts": {"a": 3}}, "contrast 'a': it is 3, but must be axes and values"),
        ({"contrasts": {"a": {"rr": "log"}}}, "'rr' is not an axis; the nearest axis is r"),
        ({"contrasts": {"a": {"r": 4}}}, "compares no axis, but must have one axis with two sides or a trend"),
        ({"contrasts": {"a": {"r": "log", "partition": ["none", "spectral_blocks"]}}}, "it compares r, partition, but"),
        ({"contrasts": {"a": {"r": [4, 8, 16]}}}, "r has 3 sides, but must have two"),
        ({"contrasts": {"a": {"r": [4, 9]}}}, "axis 'r' has no value 9; the nearest is"),
        ({"contrasts": {"a": {"r": [[4, 8], 8]}}}, "'8' is on both sides"),
        ({"contrasts": {"a": {"partition": "log"}}}, "a trend needs numbers, but partition has none"),
        ({"contrasts": {"a": {"r": "log", "num_subspaces": 2, "partition": "none"}}}, "no cells .* a trend over r"),
        ({"margin": -1}, "margin is -1, but must be a number above 0"),
        ({"margin": 500}, "margin is 500 points of acc, but all differences are below 100 points"),
        ({"margin": {"nll": 0.01}}, "'nll' is not a metric of the report; name it in secondary: .nll."),
        ({"margin": {"ac": 1}}, "'ac' is not a metric of the report; the nearest is acc"),
        ({"margin": "small"}, "margin is 'small', but must be a number above 0"),
    ],
)
def test_wrong_contrasts_and_margins_are_one_sentence(made: Any, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        made(axes=AXES, drop=DROP, **keys)
    assert str(raised.value).count("study.yaml, line") == 1


def test_contrasts_and_margin_may_change_while_a_study_has_runs(made: Any) -> None:
    before = describe_study(made(axes=AXES))
    after = describe_study(made(axes=AXES, margin=1, contrasts={"rank": {"r": "log"}}))
    assert compare_descriptions(before, before, "x") == []
    assert compare_descriptions(before, after, "x") == ["margin was null and is 1.0",
                                                        'contrasts was {} and is {"rank": ["2 x r", "r"]}']  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- report

CELLS = {
    f"partition={p},r={r}": {"labels": {"partition": p, "r": str(r)}, "accuracy": 0.5 + 0.1 * (p == "blocks"),
                             "parameters": 100 * r, "r": r}
    for p in ("none", "blocks") for r in (4, 8)
}  # fmt: skip
WEIGHTS = {name: 0.5 if "blocks" in name else -0.5 for name in CELLS}


def studied(folder: Path, margin: float | None = None, **keys: Any) -> dict[str, np.ndarray]:
    scores = make_study(folder, CELLS, **keys)
    file = folder / "study.json"
    entry = {"above": "partition=blocks", "below": "partition=none", "weights": WEIGHTS, "cells": list(CELLS)}
    content = json.loads(file.read_text()) | {"contrasts": {"subspaces": entry}}
    file.write_text(json.dumps(content | ({} if margin is None else {"margin": margin})))
    return scores


def test_a_contrast_is_computed_over_seeds_and_items(tmp_path: Path) -> None:
    scores = studied(tmp_path)
    (found,) = analyse(read_study(tmp_path)).contrasts
    values = sum(weight * scores[name] for name, weight in WEIGHTS.items())
    pooled = pooled_for_differences([scores[name].mean(axis=1) for name in CELLS]).times(4 * 0.25)
    expected = crossed_difference(values, np.zeros_like(values), pooled=pooled)
    assert (found.difference.value, found.difference.p) == pytest.approx((expected.value, expected.p))
    assert (found.n_above, found.n_below, found.verdict.outcome) == (2, 2, "better")
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Planned contrast subspaces: partition=blocks is better than partition=none by" in text
    with (tmp_path / "out" / "tables" / "contrasts.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["difference"]) == pytest.approx(expected.value)
    assert (row["contrast"], row["cells_above"], row["verdict"]) == ("subspaces", "2", "better")


def test_a_contrast_without_items_is_over_seeds(tmp_path: Path) -> None:
    scores = studied(tmp_path, metric="perplexity", direction="minimize")
    (found,) = analyse(read_study(tmp_path)).contrasts
    sums = sum(weight * (5 - 2 * scores[name].mean(axis=1)) for name, weight in WEIGHTS.items())
    assert found.difference.value == pytest.approx(sums.mean())
    assert found.difference.n_items is None
    expected = paired_difference(sums, np.zeros_like(sums), pooled=found.pooled)
    assert (found.difference.p, found.difference.df) == pytest.approx((expected.p, expected.df))
    assert found.pooled.used
    assert found.difference.df == 4


def test_a_contrast_with_a_cell_without_runs_is_refused(tmp_path: Path) -> None:
    name = list(CELLS)[1]
    studied(tmp_path, missing=[(name, seed) for seed in range(3)])
    analysis = analyse(read_study(tmp_path))
    assert analysis.contrasts == ()
    assert f"the contrast subspaces is not computed: {name} has no finished run" in analysis.incomparable


def test_a_margin_makes_cells_equivalent(tmp_path: Path) -> None:
    studied(tmp_path, margin=25.0)
    analysis = analyse(read_study(tmp_path))
    found = analysis.comparison("partition=none,r=8")
    assert found.verdict.outcome == "equivalent within the margin"
    assert -0.25 < found.interval.low < 0 < found.interval.high < 0.25
    assert "equivalent to the baseline partition=none,r=4 within the margin of 25 points" in headline(analysis)
    document = contents(analysis, [], "report")
    assert any("Equivalent means an interval within ±25 points." in str(block) for block in document.blocks)
