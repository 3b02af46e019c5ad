"""A cost at equal scores: the interpolation against numpy and a linear truth, and a report whose truth is known."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.summary import missing
from smoa_lightning.ablation.statistics import at_level, common_level, crossed_difference
from smoa_lightning.ablation.study.study_compatibility import check_folder, describe_study
from smoa_lightning.commands.report import write_report
from smoa_lightning.common.errors import UserError

from .made_study import make_study

RATES, SEEDS, DOCUMENTS = ("0.001", "0.01", "0.1"), 3, 40
NLL = {"lora": (3.0, 2.0, 2.6), "smoa": (3.6, 2.4, 1.8), "none": (4.2, 4.3, 4.1)}  # the base model has 4.0
SLOPE = {"lora": 0.1, "smoa": 0.3, "none": 0.1}  # general nll for each nat that was learned
BASE_NLL, BASE_COST = 4.0, 3.0


# ---- the interpolation


def test_without_variation_over_seeds_it_is_that_of_numpy() -> None:
    source = np.random.default_rng(0)
    x, y = np.array([4.0, 3.1, 2.5, 1.7, 1.9]), source.normal(size=(5, 3, 7))
    for level in (3.5, 3.1, 2.9, 1.8):
        found, j, w = at_level(np.repeat(x[:, None], 3, axis=1), y, level)
        for seed in range(3):
            for item in range(7):  # numpy wants a growing x
                expected = np.interp(-level, -x[:4], y[:4, seed, item])
                assert found[seed, item] == pytest.approx(expected)
        assert w * x[j] + (1 - w) * x[j - 1] == pytest.approx(level)


def test_a_linear_relation_is_exact_for_each_seed() -> None:
    """Seeds that learned more are moved back to the level, so their cost is that of the line."""
    source = np.random.default_rng(1)
    x = np.array([4.0, 3.0, 2.0])[:, None] + source.normal(0, 0.2, (3, 5))
    x[0] = 4.0
    intercept, slope = source.normal(size=9), source.normal(size=9)
    found, _, _ = at_level(x, intercept + slope * x[:, :, None], 2.6)
    assert found == pytest.approx(np.broadcast_to(intercept + slope * 2.6, (5, 9)))


def test_scores_that_grow_are_read_from_below() -> None:
    found, j, w = at_level([[0.3] * 2, [0.5] * 2], [[[1.0]] * 2, [[2.0]] * 2], 0.4, higher_is_better=True)
    assert (found.tolist(), j, w) == ([[1.5], [1.5]], 1, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("level", "message"), [(1.0, "no point of the curve reaches"), (4.0, "the beginning of the curve reaches")]
)
def test_a_level_that_is_not_on_the_curve_is_refused(level: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        at_level([[4.0], [2.0]], [[[1.0]], [[2.0]]], level)


def test_the_common_level_is_reached_by_all() -> None:
    assert common_level([4.0, 4.0, 4.0], [1.0, 2.0, 3.0], 0.9) == pytest.approx(3.1)
    assert common_level([0.3, 0.3], [0.5, 0.4], 0.5, higher_is_better=True) == pytest.approx(0.35)
    assert common_level([4.0, 3.0], [2.0, 2.0], 0.5) == pytest.approx(3.0)  # each begins at its own base model


def test_its_differences_have_their_coverage() -> None:
    """Two methods with the same line; seeds differ in what they learned, by .1, and in their cost, by .02."""
    source, covered = np.random.default_rng(2), 0
    for _ in range(400):
        document = source.normal(3, 0.5, 60)
        sides = []
        for means in ((4.0, 3.0, 2.0), (4.0, 3.4, 2.2)):
            x = np.array(means)[:, None] + source.normal(0, 0.1, (3, 4))
            y = (
                document
                + 0.2 * (4 - x[:, :, None])
                + source.normal(0, 0.02, (3, 4, 1))
                + source.normal(0, 0.1, (3, 4, 60))
            )
            x[0], y[0] = 4.0, document
            sides.append(at_level(x, y, 2.5)[0])
        found = crossed_difference(*sides)
        covered += bool(found.low <= 0 <= found.high)
    assert 0.92 < covered / 400 < 0.985


# ---- the report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three methods with three rates. smoa forgets three times as much as lora for the same gain."""
    folder = tmp_path_factory.mktemp("study")
    cells: dict[str, Any] = {
        f"method={method},lr={rate}": {"labels": {"method": method, "lr": rate}, "accuracy": 0.5, "parameters": 1000}
        for method in NLL
        for rate in RATES
    }
    make_study(folder, cells, items=20)
    described = json.loads((folder / "study.json").read_text())
    plan = {"cost": "general_nll", "at": "nll", "along": "lr", "share": 0.9, "margin": 0.01}
    described |= {"secondary": ["nll", "general_nll"], "trade_off": plan}
    (folder / "study.json").write_text(json.dumps(described))
    source = np.random.default_rng(3)
    document = source.normal(BASE_COST, 0.5, DOCUMENTS)
    for cell, facts in cells.items():
        for seed in range(SEEDS):
            run = folder / "runs" / f"{cell},seed={seed}"
            nll = NLL[facts["labels"]["method"]][RATES.index(facts["labels"]["lr"])] + source.normal(0, 0.01)
            cost = document + SLOPE[facts["labels"]["method"]] * (BASE_NLL - nll) + source.normal(0, 0.005, DOCUMENTS)
            rewrite(run, "", nll, cost)
            if (run / "base_items.jsonl").is_file():
                rewrite(run, "base_", BASE_NLL, document)
    return folder


def rewrite(run: Path, part: str, nll: float, cost: np.ndarray) -> None:
    record = json.loads((run / "record.json").read_text())
    name = "base" if part else "report"
    record["metrics"] |= {f"{name}/nll": nll, f"{name}/general_nll": float(cost.mean())}
    (run / "record.json").write_text(json.dumps(record))
    texts = (run / f"{part}items.jsonl").read_text().splitlines()
    lines = [json.loads(line) | {"nll": 2 * nll, "tokens": 2} for line in texts]
    (run / f"{part}items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = [{"task": "general text", "row": n, "text_nll": 4 * value, "tokens": 4} for n, value in enumerate(cost)]
    (run / f"{part}general_items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in texts))


def test_methods_are_compared_where_they_have_learned_equally_much(folder: Path) -> None:
    found = analyse(read_study(folder)).trade_off
    lora, smoa, without = found.curves
    level = BASE_NLL - 0.9 * (BASE_NLL - lora.at["method=lora,lr=0.01"])  # the smaller of the two best gains
    assert (lora.level, smoa.level) == (pytest.approx(level), pytest.approx(level))
    assert (lora.place, smoa.place) == (("0.001", "0.01"), ("0.01", "0.1"))
    for curve in (lora, smoa):
        expected = BASE_COST + SLOPE[curve.name.removeprefix("method=")] * (BASE_NLL - level)
        assert curve.cost.estimate.value - BASE_COST == pytest.approx(expected - BASE_COST, abs=0.2)
    (compared,) = found.comparisons
    assert (compared.cell, compared.baseline, compared.verdict.outcome) == ("method=smoa", "method=lora", "worse")
    assert compared.difference.value == pytest.approx(0.2 * (BASE_NLL - level), abs=0.005)
    assert (compared.difference.n_seeds, compared.difference.n_items) == (SEEDS, DOCUMENTS)
    gains = {each.cell: each.difference.value for each in found.gains}
    assert gains == {f"method={m}": pytest.approx(SLOPE[m] * (BASE_NLL - level), abs=0.005) for m in ("lora", "smoa")}
    assert without.cost is None
    assert found.refused == ("method=none has no level of nll: no point is better than the base model",)


def test_a_report_has_its_section_figure_and_file(folder: Path, tmp_path: Path) -> None:
    _, document = write_report(folder, tmp_path, items=True)
    text = (tmp_path / "report.md").read_text()
    assert "## general_nll at equal nll" in text
    assert "method=smoa is worse than method=lora" in text
    assert {"trade_off", "trade_off_differences", "trade_off_gains"} <= {table.name for table in document.tables}
    assert (tmp_path / "figures" / "trade_off.svg").is_file()
    with (tmp_path / "tables" / "trade_off.csv").open() as file:
        lines = {line["curve"]: line for line in csv.DictReader(file)}
    assert lines["method=smoa"]["verdict_from_baseline"] == "worse"
    assert lines["method=lora"]["difference_from_baseline"] == ""
    assert float(lines["method=lora"]["difference_from_base_model"]) > 0


def test_a_study_without_the_documents_of_the_base_model_has_no_cost(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    for file in (tmp_path / "copy").glob("runs/*/base_general_items.jsonl"):
        file.unlink()
    found = analyse(read_study(tmp_path / "copy")).trade_off
    assert (found.comparisons, found.gains) == ((), ())
    assert "method=lora has no general_nll at the level: the base model has no score of its items" in found.refused


# ---- the study file


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nll", "trade_off must be like"),
        ({"at": "nll", "along": "r"}, "trade_off.cost is None, but must be a metric of the report"),
        ({"cost": "general_nl", "at": "nll", "along": "r"}, "the nearest is general_nll"),
        ({"cost": "nll", "at": "nll", "along": "r"}, "are both nll"),
        ({"cost": "general_nll", "at": "nll", "along": "lr"}, "'lr', which is not an axis; the nearest is"),
        ({"cost": "general_nll", "at": "nll", "along": "partition"}, "its value none is not a number"),
        ({"cost": "general_nll", "at": "nll", "along": "r", "share": 1.5}, "must be a number above 0 and below 1"),
        ({"cost": "general_nll", "at": "nll", "along": "r", "shar": 0.5}, "the nearest is trade_off.share"),
    ],
)
def test_impossible_trade_offs_are_refused(given: Any, message: str, made: Any) -> None:
    axes = {"r": [4, 8], "partition": ["none", "spectral_blocks"], "num_subspaces": [1]}
    with pytest.raises(UserError, match=message):
        made(axes=axes, objective="nll", secondary=["general_nll"], trade_off=given)


def test_an_axis_that_changes_with_that_of_the_trade_off_is_refused(made: Any) -> None:
    """Each curve would have one point, and its points would be compared as if they were methods."""
    axes = {"lr": [1e-3, 1e-2], "trainer.max_epochs": [1, 2], "r": [4, 8]}
    given = {"cost": "general_nll", "at": "nll", "along": "lr"}
    keys = {"objective": "nll", "secondary": ["general_nll"], "trade_off": given}
    made(axes=axes, **keys)
    with pytest.raises(UserError, match=r"but trainer\.max_epochs changes with it, so no two cells differ only in lr"):
        made(axes=axes, zip=[["lr", "trainer.max_epochs"]], **keys)


def test_a_general_text_that_is_off_has_no_metric(made: Any) -> None:
    with pytest.raises(UserError, match=r"general_nll needs a general text, but forgetting\.text is null"):
        made(axes={"r": [4]}, objective="nll", secondary=["general_nll"], overrides={"forgetting.text": None})


def test_a_trade_off_may_change_in_a_folder(made: Any, tmp_path: Path) -> None:
    plan = {"cost": "general_nll", "at": "nll", "along": "r"}
    before, after = (
        made(axes={"r": [4, 8]}, objective="nll", secondary=["general_nll"], trade_off=given) for given in (None, plan)
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "study.json").write_text(json.dumps(describe_study(before)))
    (change,) = check_folder(tmp_path / "folder", after)
    assert change.startswith("trade_off was null and is {")


def with_a_new_head(folder: Path, copy: Path, seeds: tuple[int, ...]) -> Path:
    """Copy the study as one of a labelled task, whose base model was scored with some seeds."""
    shutil.copytree(folder, copy)
    described = json.loads((copy / "study.json").read_text())
    for cell in described["cells"].values():
        cell["settings"]["data"] = {"task": "cola"}
    (copy / "study.json").write_text(json.dumps(described))
    first = copy / "runs" / "method=lora,lr=0.001,seed=0"
    base = {key: value for key, value in json.loads((first / "record.json").read_text())["metrics"].items()
            if key.startswith("base/")}  # fmt: skip
    for file in copy.glob("runs/*/record.json"):
        record = json.loads(file.read_text())
        record["data"]["protocol"] = "classification"
        if file.parent.name in [f"method=lora,lr=0.001,seed={seed}" for seed in seeds]:
            record["metrics"] |= base
            for name in ("base_items.jsonl", "base_general_items.jsonl"):
                (file.parent / name).write_text((first / name).read_text())
        file.write_text(json.dumps(record))
    return copy


def test_a_base_model_of_each_seed_begins_the_curve_of_its_seed(folder: Path, tmp_path: Path) -> None:
    one = analyse(read_study(folder)).trade_off
    each = analyse(read_study(with_a_new_head(folder, tmp_path / "each", (0, 1, 2)))).trade_off
    assert [curve.level for curve in each.curves] == pytest.approx([curve.level for curve in one.curves])
    assert each.comparisons[0].difference == one.comparisons[0].difference
    assert [gain.difference.value for gain in each.gains] == pytest.approx([g.difference.value for g in one.gains])


def test_seeds_without_a_base_model_are_named(folder: Path, tmp_path: Path) -> None:
    analysis = analyse(read_study(with_a_new_head(folder, tmp_path / "two", (0, 1))))
    assert {gain.difference.n_seeds for gain in analysis.gains} == {2}
    (sentence,) = (each for each in missing(analysis) if "was not scored with the seeds 2:" in each)
    assert "they are left out of the differences from the base model" in sentence
    assert any("has no score of its items with seed 2" in each for each in analysis.trade_off.refused)
