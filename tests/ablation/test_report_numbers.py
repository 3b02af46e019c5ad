"""The CSV files of ``report``: numbers of Python's statistics module and of the records, one column for each axis."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.csv_files import data_files
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.records.csv_text import csv_text
from tests.ablation.made_study import LR, make_study

CELLS: dict[str, dict[str, Any]] = {
    f"method={m},lr={lr}": {"labels": {"method": m, LR: lr}, "accuracy": a, "parameters": 1000, "rank": 4.0}
    for m, lr, a in (("lora", "0.0003", 0.4), ("lora", "0.003", 0.5), ("smoa", "0.0003", 0.7), ("smoa", "0.003", 0.8))
}
FIRST = next(iter(CELLS))


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of all CSV files, as a program reads them."""
    files = data_files(analyse(read_study(folder)))
    texts = {name: csv_text([data.columns, *data.rows]) for name, data in files.items()}
    return {name: list(csv.DictReader(text.splitlines())) for name, text in texts.items()}


def test_cells_have_means_and_intervals_of_the_statistics_module(tmp_path: Path) -> None:
    scores = make_study(tmp_path, CELLS, seeds=range(4), items=50, missing=[(FIRST, 3)])
    for row in tables(tmp_path)["cells"]:
        means = [float(mean) for mean in scores[row["cell"]].mean(axis=1)][: 3 if row["cell"] == FIRST else 4]
        assert float(row["mean"]) == pytest.approx(statistics.fmean(means), rel=1e-14)
        assert float(row["sd"]) == pytest.approx(statistics.stdev(means), rel=1e-12)
        half = stats.t.ppf(0.975, len(means) - 1) * statistics.stdev(means) / len(means) ** 0.5
        assert float(row["high"]) - float(row["mean"]) == pytest.approx(half, rel=1e-9)
        assert float(row["mean"]) - float(row["low"]) == pytest.approx(half, rel=1e-9)
        assert (row["n"], row["planned"], row["unit"], row["no_interval"]) == (str(len(means)), "4", "share", "")
        assert (row["method"], row["lr"]) == tuple(CELLS[row["cell"]]["labels"].values())
        assert (row["parameters"], row["adapter_bytes"]) == ("1000", "4000")


def test_runs_have_every_metric_of_their_records(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS, items=20, search=True)
    rows = tables(tmp_path)["runs"]
    assert len(rows) == 3 * len(CELLS)
    for row in rows:
        record = json.loads((tmp_path / "runs" / row["run"] / "record.json").read_text())
        for name, value in record["metrics"].items():
            assert float(row[name]) == value
        assert float(row["score"]) == record["metrics"]["report/acc"]
        assert int(row["seed"]) == record["ablation"]["seed"]
    # the searched value has the name of an axis of this study, so its column has the whole key
    assert {row[LR] for row in rows} == {"0.1"}
    assert {row["lr"] for row in rows} == {"0.0003", "0.003"}


def test_a_metric_that_was_not_measured_is_an_empty_cell(tmp_path: Path) -> None:
    make_study(tmp_path, {**CELLS, FIRST: {**CELLS[FIRST], "rank": -1.0}}, items=20)
    rows = tables(tmp_path)["runs"]
    assert {(row["cell"] == FIRST, row["rank/effective_mean"]) for row in rows} == {(True, ""), (False, "4")}


def test_differences_have_the_unit_of_the_metric(tmp_path: Path) -> None:
    scores = make_study(tmp_path, CELLS, items=50)
    found = tables(tmp_path)
    for row in found["differences"]:
        value = (scores[row["cell"]] - scores[FIRST]).mean()
        assert float(row["difference"]) == pytest.approx(value)
        assert float(row["low"]) < float(row["difference"]) < float(row["high"])
        assert (row["baseline"], row["unit"], row["n_seeds"], row["n_items"]) == (FIRST, "share", "3", "50")
        assert float(row["p_holm"]) >= float(row["p"])
    assert len(found["gains"]) == len(CELLS)
    trials = scores["base model"]
    assert float(found["gains"][0]["difference"]) == pytest.approx((scores[FIRST] - trials).mean())


def test_trials_have_a_column_for_each_value(tmp_path: Path) -> None:
    make_study(tmp_path, {name: CELLS[name] for name in list(CELLS)[:2]}, items=20, search=True)
    found = tables(tmp_path)
    row = found["trials"][0]
    assert (row["trial"], row["state"], row["score"], row[LR], row["lr"]) == ("0", "complete", "0.9", "0.001", "0.0003")
    best = found["searches"][0]
    assert (best["best_lr"], best["best_score"], best["complete"], best["failed"]) == ("0.1", "0.5", "4", "1")


def _equal(folder: Path) -> None:
    for file in (folder / "runs").glob(f"{FIRST},seed=*/record.json"):
        record = json.loads(file.read_text())
        record["metrics"]["report/acc"] = 0.5
        file.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("arguments", "change", "reason"),
    [
        ({"seeds": [0]}, None, "no interval: one seed"),
        ({}, _equal, "no interval: all seeds have the same score"),
        ({"missing": [(FIRST, seed) for seed in range(3)]}, None, "no finished run"),
    ],
    ids=["one seed", "equal scores", "no run"],
)
def test_a_cell_without_an_interval_says_why(
    arguments: dict[str, Any], change: Callable[[Path], None] | None, reason: str, tmp_path: Path
) -> None:
    make_study(tmp_path, CELLS, items=20, **arguments)
    if change is not None:
        change(tmp_path)
    row = tables(tmp_path)["cells"][0]
    assert (row["no_interval"], row["low"], row["high"]) == (reason, "", "")


def test_names_of_columns_are_never_twice(tmp_path: Path) -> None:
    """An axis with the name of another column keeps its own column."""
    cells = {
        f"mean={n},a.r={n}": {"labels": {"mean": str(n), "a.r": str(n), "b.r": "x"}, "accuracy": 0.5, "parameters": 10}
        for n in (1, 2)
    }
    make_study(tmp_path, cells, items=20)
    for name, data in data_files(analyse(read_study(tmp_path))).items():
        assert len(set(data.columns)) == len(data.columns), name
        assert all(len(row) == len(data.columns) for row in data.rows), name
    row = tables(tmp_path)["cells"][1]
    assert (row["axis/mean"], row["a.r"], row["b.r"]) == ("2", "2", "x")
    assert np.isfinite(float(row["mean"]))
