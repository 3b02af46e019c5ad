"""Comparisons of each cell with its baseline and with the base model: difference, test and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from smoa_lightning.ablation.report.cells import CellResult, unit
from smoa_lightning.ablation.report.folder import BaseModelScore
from smoa_lightning.ablation.statistics import (
    Difference,
    Scores,
    Verdict,
    crossed_difference,
    holm,
    mcnemar,
    pair,
    paired_difference,
    seed_effect,
    verdict,
)
from smoa_lightning.common.errors import UserError

BASE_MODEL = "the base model"


@dataclass(frozen=True)
class Comparison:
    """A cell compared with its baseline, or with the base model.

    Args:
        cell: Name of the cell.
        baseline: Name of the baseline.
        metric: Metric of both scores.
        difference: The cell minus the baseline.
        test: The test that p comes from, in words.
        adjusted: p after Holm's correction over all comparisons.
        effect: Hedges' g of the seeds, ``None`` without one.
        verdict: Whether the difference is established, and its sentence.
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


Pair = tuple[CellResult, CellResult]


def with_baselines(
    cells: Sequence[CellResult], baselines: Mapping[str, str], direction: str
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Compare each cell with its baseline; also return why some cannot be compared, one sentence each."""
    by_name = {cell.name: cell for cell in cells}
    pairs: list[Pair] = []
    refused: list[str] = []
    for cell in cells:
        baseline = by_name.get(baselines.get(cell.name, ""))
        if baseline is None or baseline is cell:
            continue
        if not cell.runs or not baseline.runs:
            without = cell if not cell.runs else baseline
            refused.append(f"{cell.name} is not compared: {without.name} has no finished run")
            continue
        pairs.append((cell, baseline))
    found, more = _compared(pairs, direction)
    return found, (*refused, *more)


def with_base_model(
    cells: Sequence[CellResult], scores: Mapping[str, BaseModelScore], direction: str
) -> tuple[Comparison, ...]:
    """Compare each cell with the base model on the same rows, if the base model was scored there.

    The base model has no seed: its score of each item is subtracted from the score of every seed.
    """
    pairs = [(cell, _as_cell(cell, scores[cell.name])) for cell in cells if cell.runs and cell.name in scores]
    return _compared(pairs, direction)[0]


def is_established_better(cell: CellResult, other: CellResult, direction: str, family: int) -> bool:
    """Return whether a cell is established to be better than another one.

    Args:
        cell: A cell with runs.
        other: Another cell with runs and the same metric.
        direction: ``maximize`` or ``minimize``.
        family: Number of pairs that p is corrected for.
    """
    try:
        difference = _difference(cell, other)[0]
    except UserError:  # no seed or no item in common
        return False
    adjusted = None if difference.p is None else min(1.0, family * difference.p)
    judged = verdict(cell.name, other.name, difference, adjusted, higher_is_better=direction == "maximize")
    return judged.established and bool(judged.better)


def _as_cell(cell: CellResult, base: BaseModelScore) -> CellResult:
    runs = tuple(replace(run, score=base.score, items=base.items, values=base.values) for run in cell.runs)
    return replace(cell, name=BASE_MODEL, runs=runs)


def _compared(pairs: Sequence[Pair], direction: str) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Compare pairs, corrected for the number of all pairs; also return why some cannot be compared."""
    differences: list[tuple[CellResult, CellResult, Difference, str, tuple[Any, ...]]] = []
    refused: list[str] = []
    for cell, other in pairs:
        try:
            differences.append((cell, other, *_difference(cell, other)))
        except UserError as error:
            refused.append(f"{cell.name} is not compared: {error}")
    adjusted = holm([difference.p for _, _, difference, _, _ in differences])
    comparisons = []
    for (cell, other, difference, test, dropped), p in zip(differences, adjusted, strict=True):
        scale, name = unit(cell.metric)
        higher = direction == "maximize"
        judged = verdict(cell.name, other.name, difference, p, higher_is_better=higher, scale=scale, unit=name)
        effect = _effect(cell, other)
        comparisons.append(Comparison(cell.name, other.name, cell.metric, difference, test, p, effect, judged, dropped))
    return tuple(comparisons), tuple(refused)


def _difference(cell: CellResult, baseline: CellResult) -> tuple[Difference, str, tuple[Any, ...]]:
    """Compare over seeds and items if items have scores, else over seeds; two single runs by McNemar's test."""
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
        raise UserError("the two cells have no seed in common")
    found = paired_difference([mine[seed] for seed in shared], [theirs[seed] for seed in shared])
    return found, "seeds only", tuple(sorted({*mine, *theirs} - {*shared}))


def _scores(cell: CellResult) -> Scores:
    seeds, same = tuple(run.seed for run in cell.runs), cell.runs[0].items
    if all(run.items == same for run in cell.runs):  # the usual case, without a look-up of each item
        return Scores(np.array([run.values for run in cell.runs]), seeds, same)
    items = list(dict.fromkeys(item for run in cell.runs for item in run.items))
    place = {item: column for column, item in enumerate(items)}
    values = np.full((len(cell.runs), len(items)), np.nan)
    for row, run in enumerate(cell.runs):
        values[row, [place[item] for item in run.items]] = run.values
    return Scores(values, seeds, tuple(items))


def _effect(cell: CellResult, baseline: CellResult) -> float | None:
    theirs = {run.seed: run.score for run in baseline.runs}
    shared = [(run.score, theirs[run.seed]) for run in cell.runs if run.seed in theirs]
    if len(shared) < 3:
        return None
    return seed_effect(*zip(*shared, strict=True)).g_z
