"""The difference of two cells, or a contrast of several, over the seeds and items that they share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.statistics import (
    Difference,
    Pooled,
    Scores,
    accuracy_difference,
    common_groups,
    crossed_difference,
    item_difference,
    pair,
    paired_difference,
    seed_effect,
)
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.metric_table import METRICS

Found = tuple[Difference, str, tuple[Any, ...], Pooled | None]  # with the test, left out seeds, and the pooled variance
Pool = Callable[[NDArray[np.float64]], Pooled]  # (cells, seeds) scores -> their pooled variance


class SeedPools:
    """The variance over seeds of cells with the same rows, pooled on the seeds and items of each comparison.

    Args:
        cells: Cells with the same metric and the same report rows.
        pool: ``pooled_for_differences`` or ``pooled_for_gains``.
    """

    def __init__(self, cells: Sequence[CellResult], pool: Pool) -> None:
        self._cells, self._pool = [cell for cell in cells if cell.runs], pool
        self._scores = [scores_of(cell) for cell in self._cells] if all(map(has_items, self._cells)) else None
        self._found: dict[tuple[Any, ...], Pooled | None] = {}

    def of(self, seeds: Sequence[Hashable], items: Sequence[Hashable] | None) -> Pooled | None:
        """Return the pooled variance of the cells that have all of these seeds and items; None for one seed or cell.

        Args:
            seeds: Seeds of the comparison.
            items: Items of the comparison; None if scores are compared over seeds only.
        """
        key = (tuple(seeds), None if items is None else tuple(items))
        if key not in self._found:
            means = [self._means(place, *key) for place in range(len(self._cells))]
            complete = [each for each in means if each is not None]
            enough = len(seeds) > 1 and len(complete) > 1
            self._found[key] = self._pool(np.array(complete)) if enough else None
        return self._found[key]

    def _means(self, place: int, seeds: tuple[Any, ...], items: tuple[Any, ...] | None) -> NDArray[np.float64] | None:
        runs = {run.seed: number for number, run in enumerate(self._cells[place].runs)}
        if not runs.keys() >= {*seeds}:
            return None
        rows = [runs[seed] for seed in seeds]
        if items is None or self._scores is None:
            return np.array(self._cells[place].scores)[rows]
        scores = self._scores[place]
        if scores.items == items:
            values = scores.values[rows]
        else:
            column = {item: number for number, item in enumerate(scores.items)}
            if not column.keys() >= {*items}:
                return None
            values = scores.values[np.ix_(rows, [column[item] for item in items])]
        means: NDArray[np.float64] = values.mean(axis=1)
        return means if np.isfinite(means).all() else None


def has_items(cell: CellResult) -> bool:
    """Whether all runs of a cell have scores of items."""
    return all(run.items for run in cell.runs)


def scores_of(cell: CellResult) -> Scores:
    """Return the scores of a cell's items; nan where a run has no score."""
    seeds, same = tuple(run.seed for run in cell.runs), cell.runs[0].items
    if all(run.items == same for run in cell.runs):  # the usual case, without a look-up of each item
        return Scores(np.array([run.values for run in cell.runs]), seeds, same)
    items = list(dict.fromkeys(item for run in cell.runs for item in run.items))
    place = {item: column for column, item in enumerate(items)}
    values = np.full((len(cell.runs), len(items)), np.nan)
    for row, run in enumerate(cell.runs):
        values[row, [place[item] for item in run.items]] = run.values
    return Scores(values, seeds, tuple(items))


def groups_of(cells: Sequence[CellResult], items: Sequence[Hashable]) -> list[Hashable] | None:
    """Return the group of each item by the runs of some cells; None if no run knows it."""
    return common_groups((run.groups for cell in cells for run in cell.runs), items)


def cell_difference(cell: CellResult, baseline: CellResult, pools: SeedPools, factor: float) -> Found:
    """Compare over seeds and items if items have scores, else over seeds; two single runs over their items.

    Args:
        cell: A cell with runs.
        baseline: The cell that it is compared with.
        pools: The pooled variances of their family.
        factor: Number of the two that vary over seeds: 2, or 1 for the base model.

    Raises:
        UserError: The two share no seed or no item.
    """
    if has_items(cell) and has_items(baseline):
        paired = pair(scores_of(cell), scores_of(baseline))
        pooled = _times(pools.of(paired.seeds, paired.items), factor)
        groups = groups_of((cell, baseline), paired.items)
        difference = crossed_difference(paired.cell, paired.baseline, pooled=pooled, groups=groups)
        if difference.n_seeds == 1:
            is_accuracy = METRICS[cell.metric].is_accuracy
            one = (accuracy_difference if is_accuracy else item_difference)(
                paired.cell[0], paired.baseline[0], groups=groups
            )
            test = "groups of items" if one.n_groups is not None else "McNemar" if is_accuracy else "items"
            one = replace(one, low=None, high=None, standard_error=None, df=None)  # they do not hold for new seeds
            return one, f"{test}, one seed", paired.dropped_seeds, None
        test = "seeds and items" if difference.n_groups is None else "seeds and groups of items"
        return difference, test, paired.dropped_seeds, pooled
    mine, theirs = _by_seed(cell), _by_seed(baseline)
    shared = [seed for seed in mine if seed in theirs]
    if not shared:
        raise UserError("the two cells have no seed in common")
    pooled = _times(pools.of(shared, None), factor)
    found = paired_difference([mine[seed] for seed in shared], [theirs[seed] for seed in shared], pooled=pooled)
    return found, "seeds only", tuple(sorted({*mine, *theirs} - {*shared})), pooled


def hedges_g(cell: CellResult, baseline: CellResult) -> float | None:
    """Return the effect size over the shared seeds; None with fewer than three."""
    theirs = _by_seed(baseline)
    shared = [(run.score, theirs[run.seed]) for run in cell.runs if run.seed in theirs]
    if len(shared) < 3:
        return None
    return seed_effect(*zip(*shared, strict=True)).g_z


def _by_seed(cell: CellResult) -> Mapping[int, float]:
    return {run.seed: run.score for run in cell.runs}


def _times(pooled: Pooled | None, factor: float) -> Pooled | None:
    return None if pooled is None else pooled.times(factor)
