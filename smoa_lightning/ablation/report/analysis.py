"""From runs to numbers: what each cell scores and costs, and what its difference from the baseline is worth."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoa_lightning.ablation.report.folder import FinishedRun, StudyFolder
from smoa_lightning.ablation.statistics import (
    Difference,
    Estimate,
    GridEffects,
    Scores,
    Verdict,
    crossed_difference,
    grid_effects,
    holm,
    interquartile_mean,
    mcnemar,
    mean_interval,
    pair,
    paired_difference,
    seed_effect,
    verdict,
)
from smoa_lightning.errors import UserError

IQM_SEEDS = 5  # fewer leave nothing in the middle half to speak of
SHARES = ("acc", "acc_norm", "acc_token", "unparsed_rate", "rouge_l", "token_f1", "distinct_1", "distinct_2")


@dataclass(frozen=True)
class CellResult:
    """What a cell scores and costs.

    Args:
        name: Its name.
        labels: Axis -> label.
        settings: Full key -> value of its settings, nested.
        metric: What it is scored by.
        planned: Seeds of the study.
        runs: Its finished runs.
        estimate: Mean over seeds with its interval; ``None`` without a run.
        iqm: Interquartile mean with its interval, of enough seeds.
        costs: Name -> median over its runs, of what was measured.
    """

    name: str
    labels: Mapping[str, str]
    settings: Mapping[str, Any]
    metric: str
    planned: int
    runs: tuple[FinishedRun, ...]
    estimate: Estimate | None
    iqm: Estimate | None
    costs: Mapping[str, float]

    @property
    def scores(self) -> list[float]:
        """The score of each seed."""
        return [run.score for run in self.runs]

    def setting(self, key: str) -> Any:
        """Return a setting by its full key, ``None`` where the cell has none."""
        value: Any = self.settings
        for word in key.split("."):
            value = value.get(word) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class Comparison:
    """A cell against its baseline.

    Args:
        cell: Name of the cell.
        baseline: Name of the baseline.
        metric: What both are scored by.
        difference: The cell minus the baseline.
        test: What p comes from, in words.
        adjusted: p after Holm's correction over all comparisons.
        effect: Hedges' g of the seeds, ``None`` where there is none.
        verdict: What it says.
        dropped: Seeds that only one of the two has.
    """

    cell: str
    baseline: str
    metric: str
    difference: Difference
    test: str
    adjusted: float | None
    effect: float | None
    verdict: Verdict
    dropped: tuple[Any, ...]


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report.

    Args:
        study: The folder.
        direction: ``maximize`` or ``minimize``.
        cells: In the order of the study.
        comparisons: Of the cells that can be compared.
        incomparable: Why others can not, one sentence each.
        grid: Main effects and interactions, where the axes make a grid.
        base: Metric -> score of the untouched backbone and how many items it is of.
    """

    study: StudyFolder
    direction: str
    cells: tuple[CellResult, ...]
    comparisons: tuple[Comparison, ...]
    incomparable: tuple[str, ...]
    grid: GridEffects | None
    base: Mapping[str, tuple[float, float]]

    @property
    def scored(self) -> tuple[CellResult, ...]:
        """The cells that have a run."""
        return tuple(cell for cell in self.cells if cell.runs)

    def comparison(self, cell: str) -> Comparison | None:
        """Return the comparison of a cell."""
        return next((each for each in self.comparisons if each.cell == cell), None)


# Name of a cost -> where a record has it.
COSTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "parameters": lambda record: record["metrics"].get("parameters/trainable"),
    "bytes": lambda record: record["metrics"].get("parameters/adapter_bytes"),
    "rank": lambda record: _positive(record["metrics"].get("rank/effective_mean")),
    "tokens_per_second": lambda record: _positive(record["metrics"].get("cost/tokens_per_second")),
    "memory": lambda record: _positive(record["metrics"].get("cost/peak_memory_mb")),
    "seconds": lambda record: record["ablation"].get("seconds"),
}


def analyse(study: StudyFolder) -> Analysis:
    """Compute everything that a report says."""
    description = study.description
    direction = str(description["objective"]["direction"])
    cells = tuple(_cell(name, facts, study) for name, facts in description["cells"].items())
    comparisons, incomparable = _comparisons(cells, description["baselines"], direction)
    return Analysis(study, direction, cells, comparisons, incomparable, _grid(cells), _base(study))


def _cell(name: str, facts: Mapping[str, Any], study: StudyFolder) -> CellResult:
    runs = study.runs[name]
    scores = [run.score for run in runs]
    costs = {}
    for cost, read in COSTS.items():
        values = [float(value) for run in runs if (value := read(run.record)) is not None]
        if values:
            costs[cost] = statistics.median(values)
    return CellResult(
        name=name,
        labels=facts["labels"],
        settings=facts["settings"],
        metric=facts["report_metric"],
        planned=len(study.description["seeds"]),
        runs=runs,
        estimate=mean_interval(scores) if scores else None,
        iqm=interquartile_mean([scores]) if len(scores) >= IQM_SEEDS else None,
        costs=costs,
    )


def _positive(value: Any) -> float | None:
    return float(value) if value is not None and value > 0 else None


def unit(metric: str) -> tuple[float, str]:
    """Return factor and unit of differences: points for shares, none for other metrics.

    >>> unit("acc"), unit("nll")
    ((100.0, 'points'), (1.0, ''))
    """
    return (100.0, "points") if metric in SHARES else (1.0, "")


# ---------------------------------------------------------------------------------------------------------- comparisons


def _comparisons(
    cells: Sequence[CellResult], baselines: Mapping[str, str], direction: str
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    by_name = {cell.name: cell for cell in cells}
    made: list[tuple[CellResult, CellResult, Difference, str, tuple[Any, ...]]] = []
    refused: list[str] = []
    for cell in cells:
        baseline = by_name.get(baselines.get(cell.name, ""))
        if baseline is None or baseline is cell:
            continue
        if not cell.runs or not baseline.runs:
            without = cell if not cell.runs else baseline
            refused.append(f"{cell.name} is not compared: {without.name} has no finished run")
            continue
        try:
            made.append((cell, baseline, *_difference(cell, baseline)))
        except UserError as error:
            refused.append(f"{cell.name} is not compared: {error}")
    adjusted = holm([difference.p for _, _, difference, _, _ in made])
    found = []
    for (cell, baseline, difference, test, dropped), p in zip(made, adjusted, strict=True):
        scale, name = unit(cell.metric)
        higher = direction == "maximize"
        said = verdict(cell.name, baseline.name, difference, p, higher_is_better=higher, scale=scale, unit=name)
        found.append(
            Comparison(
                cell.name, baseline.name, cell.metric, difference, test, p, _effect(cell, baseline), said, dropped
            )
        )
    return tuple(found), tuple(refused)


def _difference(cell: CellResult, baseline: CellResult) -> tuple[Difference, str, tuple[Any, ...]]:
    """Compare by seeds and items where items have scores, else by seeds; two single runs by McNemar's test."""
    if all(run.items for run in (*cell.runs, *baseline.runs)):
        paired = pair(_scores(cell), _scores(baseline))
        difference = crossed_difference(paired.cell, paired.baseline)
        if difference.n_seeds == 1:
            counted = mcnemar(paired.cell[0], paired.baseline[0])
            value = Difference(difference.value, None, None, counted.p, None, None, 1, counted.n_items, "items")
            return value, "McNemar, one seed", paired.dropped_seeds
        return difference, "seeds and items", paired.dropped_seeds
    mine, theirs = ({run.seed: run.score for run in each.runs} for each in (cell, baseline))
    shared = [seed for seed in mine if seed in theirs]
    if not shared:
        raise UserError("the two have no seed in common")
    found = paired_difference([mine[seed] for seed in shared], [theirs[seed] for seed in shared])
    return found, "seeds only", tuple(sorted({*mine, *theirs} - {*shared}))


def _scores(cell: CellResult) -> Scores:
    items = list(dict.fromkeys(item for run in cell.runs for item in run.items))
    place = {item: column for column, item in enumerate(items)}
    values = np.full((len(cell.runs), len(items)), np.nan)
    for row, run in enumerate(cell.runs):
        values[row, [place[item] for item in run.items]] = run.values
    return Scores(values, tuple(run.seed for run in cell.runs), tuple(items))


def _effect(cell: CellResult, baseline: CellResult) -> float | None:
    theirs = {run.seed: run.score for run in baseline.runs}
    shared = [(run.score, theirs[run.seed]) for run in cell.runs if run.seed in theirs]
    if len(shared) < 3:
        return None
    return seed_effect(*zip(*shared, strict=True)).g_z


# ----------------------------------------------------------------------------------------------------------------- grid


def _grid(cells: Sequence[CellResult]) -> GridEffects | None:
    """Main effects and interactions, where at least two axes vary and all cells have one metric."""
    scored = [cell for cell in cells if cell.runs]
    axes = [axis for axis in (scored[0].labels if scored else ()) if len({c.labels[axis] for c in scored}) > 1]
    if len(axes) < 2 or len({cell.metric for cell in scored}) > 1:
        return None
    runs = [(cell, run) for cell in scored for run in cell.runs]
    levels = {axis: [cell.labels[axis] for cell, _ in runs] for axis in axes}
    return grid_effects([run.score for _, run in runs], levels, [run.seed for _, run in runs])


def _base(study: StudyFolder) -> dict[str, tuple[float, float]]:
    """Score of the untouched backbone by metric, and its standard error over items."""
    found: dict[str, tuple[float, float]] = {}
    for run in study.finished:
        metric = study.description["cells"][run.cell]["report_metric"]
        value = run.metrics.get(f"base/{metric}")
        if value is not None:
            found.setdefault(metric, (float(value), float(run.metrics.get(f"base/{metric}_stderr", float("nan")))))
    return found
