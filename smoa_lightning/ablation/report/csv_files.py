"""The numbers of a report as CSV files for programs: whole precision, one column for each axis, no units in cells.

Scores and differences have the unit of the metric: an accuracy is a share, so a difference of 0.01 is one point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import COSTS, CellResult
from smoa_lightning.ablation.report.comparisons import Comparison
from smoa_lightning.ablation.report.dimensions import numeric_labels
from smoa_lightning.ablation.report.estimates import no_difference_interval, no_interval
from smoa_lightning.ablation.report.searches import best_trial, beyond_ranges
from smoa_lightning.ablation.statistics import Pooled
from smoa_lightning.records.metric_table import METRICS, measured
from smoa_lightning.records.record import STUDY_FACTS

Entry = str | float | int | bool | None

COST_NAMES = {
    "parameters": "parameters", "bytes": "adapter_bytes", "rank": "effective_rank", "step": "step_seconds",
    "tokens_per_second": "tokens_per_second", "images_per_second": "images_per_second",
    "memory": "peak_memory_mb", "seconds": "run_seconds",
}  # fmt: skip


@dataclass(frozen=True)
class Data:
    """The contents of a CSV file.

    Args:
        columns: Names of the columns.
        rows: Numbers, texts, and None for an empty cell.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]


def data_files(analysis: Analysis) -> dict[str, Data]:
    """Return name -> contents of all CSV files; a file without rows is left out."""
    files = {
        "cells": cells(analysis),
        "runs": runs(analysis),
        "differences": differences(analysis, analysis.comparisons),
        "gains": differences(analysis, analysis.gains),
        "contrasts": contrasts(analysis),
        "trade_off": trade_off(analysis),
        "effects": effects(analysis),
        "levels": levels(analysis),
        "searches": searches(analysis),
        "trials": trials(analysis),
    }
    for name, own in analysis.secondary.items():
        files |= {
            f"cells_{name}": cells(own),
            f"differences_{name}": differences(own, own.comparisons),
            f"gains_{name}": differences(own, own.gains),
            f"contrasts_{name}": contrasts(own),
        }
    return {name: data for name, data in files.items() if data.rows}


def cells(analysis: Analysis) -> Data:
    """Return one row for each cell: mean with its interval, sizes and costs."""
    fixed = ["cell", "metric", "unit", "mean", "low", "high", "n", "planned", "sd", "no_interval"]
    fixed += ["iqm", "iqm_low", "iqm_high", *COST_NAMES.values()]
    axes = AxisColumns(analysis, fixed)
    rows = []
    for cell in analysis.cells:
        mean, iqm = cell.estimate, cell.iqm
        rows.append((
            cell.name, *axes.of(cell), cell.metric, unit_of(cell.metric),
            *((None, None, None, 0) if mean is None else (mean.value, mean.low, mean.high, mean.n)), cell.planned,
            None if mean is None else mean.sd, no_interval(cell),
            *((None, None, None) if iqm is None else (iqm.value, iqm.low, iqm.high)),
            *(cell.costs.get(name) for name in COST_NAMES),
        ))  # fmt: skip
    return Data((fixed[0], *axes.titles, *fixed[1:]), tuple(rows))


def runs(analysis: Analysis) -> Data:
    """Return one row for each finished run, with its searched values and every metric of its record."""
    fixed = ["run", "cell", "seed", "metric", "unit", "score", "seconds", "signature", "reused_from"]
    axes = AxisColumns(analysis, fixed)
    finished = [(cell, run) for cell in analysis.cells for run in cell.runs]
    keys = list(dict.fromkeys(key for _, run in finished for key in run.record[STUDY_FACTS]["parameters"]))
    values = short_names(keys, [*fixed, *axes.titles])
    metrics = sorted({name for _, run in finished for name in run.metrics})
    rows = []
    for cell, run in finished:
        facts, found = run.record[STUDY_FACTS], run.metrics
        reused = PurePath(facts["reused_from"]).parts[-3] if facts.get("reused_from") else None
        rows.append((
            run.name, cell.name, *axes.of(cell), run.seed, cell.metric, unit_of(cell.metric), run.score,
            facts.get("seconds"), facts["signature"], reused, *(facts["parameters"].get(key) for key in keys),
            *(measured(name, found.get(name)) for name in metrics),
        ))  # fmt: skip
    return Data((*fixed[:2], *axes.titles, *fixed[2:], *values, *metrics), tuple(rows))


def differences(analysis: Analysis, comparisons: Sequence[Comparison]) -> Data:
    """Return one row for each comparison."""
    fixed = ["cell", "baseline", "metric", "unit", "difference", "low", "high", "p", "p_holm", "hedges_g", "n_seeds"]
    fixed += ["n_items", "established", "better", "test", "no_interval", "low_corrected", "high_corrected", "verdict"]
    fixed += ["bartlett_p", "pooled", "n_groups"]
    axes, by_name = AxisColumns(analysis, fixed), {cell.name: cell for cell in analysis.cells}
    rows = []
    for each in comparisons:
        d = each.difference
        rows.append((
            each.cell, *axes.of(by_name[each.cell]), each.baseline, each.metric, unit_of(each.metric), d.value, d.low,
            d.high, d.p, each.adjusted, each.effect, d.n_seeds, d.n_items, each.verdict.established,
            each.verdict.better, each.test, no_difference_interval(d), each.interval.low, each.interval.high,
            each.verdict.outcome, *pooled_entries(each.pooled), d.n_groups,
        ))  # fmt: skip
    return Data((fixed[0], *axes.titles, *fixed[1:]), tuple(rows))


def contrasts(analysis: Analysis) -> Data:
    """Return one row for each planned contrast."""
    titles = ("contrast", "above", "below", "cells_above", "cells_below", "metric", "unit", "difference", "low", "high",
              "p", "p_holm", "n_seeds", "n_items", "verdict", "low_corrected", "high_corrected", "no_interval",
              "bartlett_p", "pooled", "n_groups")  # fmt: skip
    rows = []
    for each in analysis.contrasts:
        d = each.difference
        rows.append((
            each.name, each.above, each.below, each.n_above, each.n_below, each.metric, unit_of(each.metric), d.value,
            d.low, d.high, d.p, each.adjusted, d.n_seeds, d.n_items, each.verdict.outcome, each.interval.low,
            each.interval.high, no_difference_interval(d), *pooled_entries(each.pooled), d.n_groups,
        ))  # fmt: skip
    return Data(titles, tuple(rows))


def trade_off(analysis: Analysis) -> Data:
    """Return one row for each curve: its cost at the level, and its differences from base model and baseline."""
    sides = ("from_base_model", "from_baseline")
    ends = [f"{name}_{side}" for side in sides for name in ("difference", "low", "high", "p_holm", "verdict")]
    titles = ("curve", "metric", "unit", "at", "level", "between", "and", "mean", "low", "high", "n", *ends)
    found = analysis.trade_off
    rows: list[tuple[Entry, ...]] = []
    if found is None:
        return Data(titles, ())
    for curve in found.curves:
        if curve.cost is None or curve.cost.estimate is None:
            continue
        metric, mean = curve.cost.metric, curve.cost.estimate
        entries: list[Entry] = []
        for side in (found.gains, found.comparisons):
            each = next((c for c in side if c.cell == curve.name), None)
            entries += [None] * 5 if each is None else [
                each.difference.value, each.interval.low, each.interval.high, each.adjusted, each.verdict.outcome
            ]  # fmt: skip
        rows.append((
            curve.name, metric, unit_of(metric), found.plan["at"], curve.level, *curve.place, mean.value, mean.low,
            mean.high, mean.n, *entries,
        ))  # fmt: skip
    return Data(titles, tuple(rows))


def pooled_entries(pooled: Pooled | None) -> tuple[float | None, bool]:
    """Return p of Bartlett's test, and whether the seed variance is the pooled one."""
    if pooled is None:
        return None, False
    p = float(pooled.bartlett)
    return None if math.isnan(p) else p, bool(pooled.used)


def effects(analysis: Analysis) -> Data:
    """Return one row for each main effect and interaction."""
    titles = ("term", "df", "full_df", "f", "p", "partial_eta_squared", "sum_of_squares")
    terms = () if analysis.grid is None else analysis.grid.terms
    return Data(titles, tuple((t.name, t.df, t.full_df, t.f, t.p, t.partial_eta_squared, t.sum_of_squares)
                              for t in terms))  # fmt: skip


def levels(analysis: Analysis) -> Data:
    """Return one row for each level of each axis, compared with the first level."""
    titles = ("axis", "level", "against", "unit", "difference", "low", "high")
    found = () if analysis.grid is None else analysis.grid.levels
    unit = unit_of(analysis.scored[0].metric)
    return Data(titles, tuple((e.axis, str(e.level), str(e.against), unit, e.value, e.low, e.high) for e in found))


def searches(analysis: Analysis) -> Data:
    """Return one row for each search, with the best values and importances in columns of their own."""
    found = analysis.study.searches
    keys = list((analysis.study.description.get("search") or {}).get("parameters", {}))
    names = short_names(keys)
    titles = ["cell", "metric", "direction", "best_trial", "best_score", "complete", "pruned", "failed", "beyond"]
    rows = []
    for cell, search in found.items():
        best = best_trial(search)
        values: Mapping[str, Any] = {} if best is None else best["parameters"]
        states = [trial["state"] for trial in search["trials"]]
        counts = [*(states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")), beyond_ranges(search)]
        score = None if best is None else best["value"]
        rows.append((
            cell, search["metric"], search.get("direction"), None if best is None else best["number"], score, *counts,
            *(values.get(key) for key in keys), *(search["importances"].get(key) for key in keys),
        ))  # fmt: skip
    return Data((*titles, *(f"best_{n}" for n in names), *(f"importance_{n}" for n in names)), tuple(rows))


def trials(analysis: Analysis) -> Data:
    """Return one row for each trial, with its values in columns of their own."""
    fixed = ["cell", "trial", "state", "metric", "score", "seconds", "reason"]
    axes, by_name = AxisColumns(analysis, fixed), {cell.name: cell for cell in analysis.cells}
    pairs = [(cell, search, trial) for cell, search in analysis.study.searches.items() for trial in search["trials"]]
    keys = list(dict.fromkeys(key for _, _, trial in pairs for key in trial["parameters"]))
    rows = tuple(
        (cell, *axes.of(by_name.get(cell)), trial["number"], trial["state"].lower(), search["metric"], trial["value"],
         trial["seconds"], trial["reason"], *(trial["parameters"].get(key) for key in keys))
        for cell, search, trial in pairs
    )  # fmt: skip
    return Data((fixed[0], *axes.titles, *fixed[1:], *short_names(keys, [*fixed, *axes.titles])), rows)


class AxisColumns:
    """The columns of the axes: numbers where an axis is numeric, else labels.

    Args:
        analysis: The numbers.
        taken: Names of the other columns of the file.
    """

    def __init__(self, analysis: Analysis, taken: Iterable[str]) -> None:
        self._axes = list(analysis.cells[0].labels) if analysis.cells else []
        self._numbers = {axis: numeric_labels(analysis, axis) for axis in self._axes}
        self.titles = short_names(self._axes, taken)

    def of(self, cell: CellResult | None) -> list[Entry]:
        """Return the entries of a cell."""
        if cell is None:
            return [None] * len(self._axes)
        found: list[Entry] = []
        for axis in self._axes:
            numbers, label = self._numbers[axis], cell.labels[axis]
            found.append(label if numbers is None else numbers[label])
        return found


def short_names(keys: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Return the last word of each key; the whole key if the word is not unique, as ``axis/key`` if that is taken.

    >>> short_names(["model.optimizer.init_args.lr", "a.r", "b.r", "cell"], ["cell"])
    ['lr', 'a.r', 'b.r', 'axis/cell']
    """
    used, words = set(taken), [key.rpartition(".")[2] for key in keys]
    names = [w if words.count(w) == 1 and w not in used else key for key, w in zip(keys, words, strict=True)]
    return [f"axis/{name}" if name in used else name for name in names]


def unit_of(metric: str) -> str:
    """Return the unit of a metric; empty for none.

    >>> unit_of("acc"), unit_of("perplexity")
    ('share', '')
    """
    return METRICS[metric].unit if metric in METRICS else ""


assert COST_NAMES.keys() == COSTS.keys()
