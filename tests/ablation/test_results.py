"""Every number of a shipped study's tables, computed again from the shipped scores of its items."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.comparisons import Judgement, with_base_model, with_baselines
from smoa_lightning.ablation.report.folder import BaseModelScore, FinishedRun
from smoa_lightning.ablation.report.item_file import BASE, ITEM_FILE
from smoa_lightning.records.metric_table import METRICS

ROOT = Path(__file__).parents[2] / "results"
SHIPPED = sorted(file.parent for file in ROOT.glob(f"*/tables/{ITEM_FILE}"))
NUMBERS = ("difference", "low", "high", "p", "p_holm", "low_corrected", "high_corrected", "hedges_g", "bartlett_p")
COUNTS = ("n_seeds", "n_items", "n_groups", "verdict", "test", "baseline")


def table(file: Path) -> list[dict[str, str]]:
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def shipped_runs(folder: Path) -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """Return (run, cell, seed) -> the lines of its items."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for line in table(folder / ITEM_FILE):
        found[line["run"], line["cell"], line["seed"]].append(line)
    return found


def computed(folder: Path, metric: str) -> tuple[list[CellResult], dict[str, BaseModelScore]]:
    """Return the cells and the base model of a study by one metric, from nothing but the items."""
    runs: dict[str, list[FinishedRun]] = defaultdict(list)
    bases: dict[str, BaseModelScore] = {}
    for (name, cell, seed), lines in shipped_runs(folder).items():
        lines = [line for line in lines if line[metric] != ""]  # documents of general text have a score of their own
        if not lines:
            continue
        items = tuple((line["task"], int(line["row"])) for line in lines)
        groups = {item: (item[0], int(line["group"])) for item, line in zip(items, lines, strict=True) if line["group"]}
        values = np.array([float(line[metric]) for line in lines])
        score = float(values.mean())
        if name == BASE:
            bases[cell] = BaseModelScore(score, 0.0, items, values)
        else:
            runs[cell].append(FinishedRun(name, cell, int(seed), {}, score, items, values, groups))
    cells = [CellResult(cell, {}, {}, metric, len(r), tuple(r), None, None, {}) for cell, r in runs.items()]
    return cells, bases


def margin_of(study: str, metric: str) -> float | None:
    """Return the margin of a metric that the study's file declares."""
    (file,) = (ROOT.parent / "ablations").glob(f"**/{study}.yaml")
    margins: Any = yaml.safe_load(file.read_text(encoding="utf-8")).get("margin", {})
    return float(margins[metric]) if metric in margins else None


def same(line: dict[str, str], found: Any) -> None:
    d = found.difference
    bartlett = None if found.pooled is None else float(found.pooled.bartlett)
    numbers = (
        d.value,
        d.low,
        d.high,
        d.p,
        found.adjusted,
        found.interval.low,
        found.interval.high,
        found.effect,
        bartlett,
    )
    for name, number in zip(NUMBERS, numbers, strict=True):
        shown = None if line[name] == "" else float(line[name])
        expected = None if number is None or np.isnan(number) else number
        assert shown == (None if expected is None else pytest.approx(expected, rel=1e-3, abs=1e-6)), name
    counts = (d.n_seeds, d.n_items, d.n_groups, found.verdict.outcome, found.test, found.baseline)
    for name, value in zip(COUNTS, counts, strict=True):
        assert line[name] == ("" if value is None else str(value)), name


def test_studies_are_shipped_with_their_items() -> None:
    assert [folder.parent.name for folder in SHIPPED]
    assert sum((folder / ITEM_FILE).stat().st_size for folder in SHIPPED) < 2_000_000
    assert {file.parent for file in ROOT.glob("**/tables/cells.csv")} == {*SHIPPED}  # none without items


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_every_number_of_the_tables_comes_from_the_items(folder: Path) -> None:
    objective = table(folder / "cells.csv")[0]["metric"]
    ends = {file.stem.removeprefix("cells"): objective for file in folder.glob("cells.csv")}
    ends |= {file.stem.removeprefix("cells"): file.stem.removeprefix("cells_") for file in folder.glob("cells_*.csv")}
    for end, metric in ends.items():
        cells, bases = computed(folder, metric)
        by_name = {cell.name: cell for cell in cells}
        lines = table(folder / f"cells{end}.csv")
        assert {line["cell"] for line in lines} == by_name.keys()
        for line in lines:
            scores = by_name[line["cell"]].scores
            low, high = stats.t.interval(0.95, len(scores) - 1, np.mean(scores), stats.sem(scores))
            shown = [float(line[name]) for name in ("mean", "low", "high", "sd")]
            assert shown == pytest.approx([np.mean(scores), low, high, np.std(scores, ddof=1)], rel=1e-3, abs=1e-6)
        judge = Judgement(str(METRICS[metric].direction), margin_of(folder.parent.name, metric))
        baselines = {line["cell"]: line["baseline"] for line in table(folder / f"differences{end}.csv")}
        found, _ = with_baselines(cells, baselines | {name: name for name in baselines.values()}, judge)
        for line, each in zip(table(folder / f"differences{end}.csv"), found, strict=True):
            same(line, each)
        only = next(iter(bases.values())) if len(bases) == 1 else None  # else each baseline has its own
        scores_of_base = {cell.name: only or bases[baselines.get(cell.name, cell.name)] for cell in cells}
        gains = with_base_model(cells, scores_of_base, judge)
        for line, each in zip(table(folder / f"gains{end}.csv"), gains, strict=True):
            same(line, each)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_scores_of_runs_are_the_means_of_their_items(folder: Path) -> None:
    lines = {line["run"]: line for line in table(folder / "runs.csv")}
    own = {name: items for (name, _, _), items in shipped_runs(folder).items() if name != BASE}
    assert own.keys() == lines.keys()
    for name, items in own.items():
        for metric in items[0].keys() & METRICS.keys():
            mean = np.mean([float(item[metric]) for item in items if item[metric] != ""])
            assert float(lines[name][f"report/{metric}"]) == pytest.approx(mean, rel=1e-5)
