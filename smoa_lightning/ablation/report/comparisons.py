"""Comparisons of each cell with its baseline and with the base model: difference, test and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smoa_lightning.ablation.report.cells import CellResult, decimals, unit
from smoa_lightning.ablation.report.folder import BaseModelScore
from smoa_lightning.ablation.report.paired_cells import Found, SeedPools, cell_difference, hedges_g
from smoa_lightning.ablation.statistics import (
    Corrected,
    Difference,
    Pooled,
    Verdict,
    corrected,
    pooled_for_differences,
    pooled_for_gains,
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
        difference: The cell minus the baseline, with the interval of this comparison alone.
        test: The test that p comes from, in words.
        adjusted: p after Holm's correction over all comparisons.
        interval: The difference with the interval that agrees with Holm's correction.
        effect: Hedges' g of the seeds, ``None`` without one.
        verdict: Better, worse, equivalent within the margin or not established, and the sentence.
        dropped: Seeds that only one of the two has.
        pooled: The pooled seed variance of the difference; ``None`` for that of the pair alone.
    """

    cell: str
    baseline: str
    metric: str
    difference: Difference
    test: str
    adjusted: float | None
    interval: Difference
    effect: float | None
    verdict: Verdict
    dropped: tuple[Any, ...]
    pooled: Pooled | None


@dataclass(frozen=True)
class Judgement:
    """How differences are judged.

    Args:
        direction: ``maximize`` or ``minimize``.
        margin: Largest difference that does not matter, in the unit of reports (points of an accuracy); None for none.
    """

    direction: str
    margin: float | None = None

    def verdict(self, cell: str, baseline: str, metric: str, found: Corrected) -> Verdict:
        """Return the verdict on a corrected difference."""
        scale, name = unit(metric)
        return verdict(
            cell, baseline, found.interval, found.p, higher_is_better=self.direction == "maximize", scale=scale,
            unit=name, digits=decimals(metric), margin=None if self.margin is None else self.margin / scale,
            joint=found.joint,
        )  # fmt: skip


Pair = tuple[CellResult, CellResult]
Compared = tuple[tuple[Comparison, ...], tuple[str, ...]]


def with_baselines(cells: Sequence[CellResult], baselines: Mapping[str, str], judge: Judgement) -> Compared:
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
    families: dict[str, list[CellResult]] = {baseline.name: [] for _, baseline in pairs}
    for cell in cells:
        families.get(baselines.get(cell.name, ""), []).append(cell)
    pools = {name: SeedPools(family, pooled_for_differences) for name, family in families.items()}
    found, more = _compared(pairs, [pools[baseline.name] for _, baseline in pairs], [2.0] * len(pairs), judge)
    return found, (*refused, *more)


def with_base_model(
    cells: Sequence[CellResult], scores: Mapping[str, BaseModelScore], judge: Judgement
) -> tuple[Comparison, ...]:
    """Compare each cell with the base model on the same rows, if the base model was scored there.

    The base model has no seed: its score of each item is subtracted from the score of every seed. If few-shot prompts
    or a new head follow the seed, the score with those of the same seed is subtracted. Then both vary over seeds.
    """
    pairs = [(cell, _as_cell(cell, scores[cell.name])) for cell in cells if cell.name in scores]
    pairs = [(cell, base) for cell, base in pairs if base.runs]
    families: dict[int, list[CellResult]] = {}
    for cell, base in pairs:
        both = [base] if scores[cell.name].by_seed else []
        families.setdefault(id(scores[cell.name]), both).append(cell)
    pools = {
        base: SeedPools(family, pooled_for_differences if family[0].name == BASE_MODEL else pooled_for_gains)
        for base, family in families.items()
    }
    factors = [2.0 if scores[cell.name].by_seed else 1.0 for cell, _ in pairs]
    return _compared(pairs, [pools[id(scores[cell.name])] for cell, _ in pairs], factors, judge)[0]


def is_established_better(
    cell: CellResult, other: CellResult, direction: str, family: int, pools: SeedPools | None = None
) -> bool:
    """Return whether a cell is established to be better than another one.

    Args:
        cell: A cell with runs.
        other: Another cell with runs and the same metric.
        direction: ``maximize`` or ``minimize``.
        family: Number of pairs that p is corrected for.
        pools: The pooled seed variances of the cells that the two are chosen from.
    """
    try:
        difference = cell_difference(cell, other, pools or SeedPools([cell, other], pooled_for_differences), 2)[0]
    except UserError:  # no seed or no item in common
        return False
    adjusted = None if difference.p is None else min(1.0, family * difference.p)
    found = Corrected(adjusted, difference, difference)
    judged = Judgement(direction).verdict(cell.name, other.name, cell.metric, found)
    return judged.established and bool(judged.better)


def _as_cell(cell: CellResult, base: BaseModelScore) -> CellResult:
    each = [(run, base.of(run.seed)) for run in cell.runs]
    runs = [replace(run, score=b.score, items=b.items, values=b.values) for run, b in each if b is not None]
    return replace(cell, name=BASE_MODEL, runs=tuple(runs))


def _compared(
    pairs: Sequence[Pair], pools: Sequence[SeedPools], factors: Sequence[float], judge: Judgement
) -> Compared:
    """Compare pairs, corrected for the number of all pairs; also return why some cannot be compared."""
    differences: list[tuple[CellResult, CellResult, Found]] = []
    refused: list[str] = []
    for (cell, other), pool, factor in zip(pairs, pools, factors, strict=True):
        try:
            differences.append((cell, other, cell_difference(cell, other, pool, factor)))
        except UserError as error:
            refused.append(f"{cell.name} is not compared: {error}")
    comparisons = []
    family = corrected([found[0] for _, _, found in differences])
    for (cell, other, (difference, test, dropped, pooled)), each in zip(differences, family, strict=True):
        judged = judge.verdict(cell.name, other.name, cell.metric, each)
        effect = hedges_g(cell, other)
        comparisons.append(Comparison(cell.name, other.name, cell.metric, difference, test, each.p, each.interval,
                                      effect, judged, dropped, pooled))  # fmt: skip
    return tuple(comparisons), tuple(refused)
