"""Planned contrasts of a study: weighted sums of cells over paired seeds and items, with their own correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.comparisons import Judgement
from smoa_lightning.ablation.report.paired_cells import SeedPools, groups_of, has_items, scores_of
from smoa_lightning.ablation.statistics import (
    Difference,
    Pooled,
    Verdict,
    corrected,
    crossed_difference,
    paired_difference,
    pooled_for_differences,
    shared_scores,
)
from smoa_lightning.common.errors import UserError


@dataclass(frozen=True)
class PlannedContrast:
    """A contrast of the study file, computed from the runs.

    Args:
        name: Its name.
        above: What has positive weights, in words.
        below: What it is compared with, in words.
        metric: Metric of the cells.
        n_above: Number of cells with a positive weight.
        n_below: Number of cells with a negative weight.
        difference: The weighted sum, with the interval of this contrast alone.
        adjusted: p after Holm's correction over all contrasts.
        interval: The weighted sum with its corrected interval.
        verdict: Better, worse, equivalent within the margin or not established, and the sentence.
        pooled: The pooled seed variance; ``None`` for that of the contrast alone.
    """

    name: str
    above: str
    below: str
    metric: str
    n_above: int
    n_below: int
    difference: Difference
    adjusted: float | None
    interval: Difference
    verdict: Verdict
    pooled: Pooled | None


def planned_contrasts(
    cells: Sequence[CellResult], described: Mapping[str, Any], judge: Judgement
) -> tuple[tuple[PlannedContrast, ...], tuple[str, ...]]:
    """Compute the contrasts of a study; also return why some cannot be computed, one sentence each.

    Args:
        cells: All cells.
        described: ``contrasts`` of ``study.json``.
        judge: How differences are judged.
    """
    by_name = {cell.name: cell for cell in cells}
    found: list[tuple[str, Mapping[str, Any], CellResult, Difference, Pooled | None]] = []
    refused: list[str] = []
    for name, entry in described.items():
        used = [by_name[cell] for cell in entry["weights"]]
        try:
            pools = SeedPools([by_name[cell] for cell in entry["cells"]], pooled_for_differences)
            difference, pooled = _weighted(used, np.array(list(entry["weights"].values())), pools)
            found.append((name, entry, used[0], difference, pooled))
        except UserError as error:
            refused.append(f"the contrast {name} is not computed: {error}")
    contrasts = []
    family = corrected([difference for _, _, _, difference, _ in found])
    for (name, entry, cell, difference, pooled), each in zip(found, family, strict=True):
        judged = judge.verdict(entry["above"], entry["below"], cell.metric, each)
        weights = list(entry["weights"].values())
        sizes = sum(w > 0 for w in weights), sum(w < 0 for w in weights)
        contrasts.append(PlannedContrast(name, entry["above"], entry["below"], cell.metric, *sizes, difference,
                                         each.p, each.interval, judged, pooled))  # fmt: skip
    return tuple(contrasts), tuple(refused)


def _weighted(
    cells: Sequence[CellResult], weights: np.ndarray[Any, np.dtype[np.float64]], pools: SeedPools
) -> tuple[Difference, Pooled | None]:
    """Return the weighted sum of cells over the seeds and items that all of them have.

    Raises:
        UserError: A cell has no finished run, or the cells share no seed or item.
    """
    if missing := [cell.name for cell in cells if not cell.runs]:
        raise UserError(f"{missing[0]} has no finished run")
    if all(map(has_items, cells)):
        shared = shared_scores([scores_of(cell) for cell in cells])
        above, below = (np.tensordot(side, shared.values, axes=1) for side in _sides(weights))
        pooled = pools.of(shared.seeds, shared.items)
        pooled = None if pooled is None else pooled.times(float((weights**2).sum()))
        groups = groups_of(cells, shared.items)
        return crossed_difference(above, below, pooled=pooled, groups=groups), pooled
    by_seed = [{run.seed: run.score for run in cell.runs} for cell in cells]
    seeds = [seed for seed in by_seed[0] if all(seed in each for each in by_seed)]
    if not seeds:
        raise UserError("its cells have no seed in common")
    scores = np.array([[each[seed] for seed in seeds] for each in by_seed])
    above, below = (side @ scores for side in _sides(weights))
    pooled = pools.of(seeds, None)
    pooled = None if pooled is None else pooled.times(float((weights**2).sum()))
    return paired_difference(above, below, pooled=pooled), pooled


def _sides(weights: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[np.ndarray[Any, np.dtype[np.float64]], ...]:
    """Return the weights of both sides: rounding is then measured against the scores, and not against the rounding."""
    return np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
