"""The trade-off of a study: a cost at equal scores, such as the forgetting of methods that have learned equally much.

The cells that differ only on one axis, such as the learning rate, are the points of a curve that begins at the base
model. The cost of each curve is interpolated to one level of the other metric (``statistics.equal_level``). Then curves
are compared with each other and with the base model like cells, over paired seeds and items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.comparisons import Comparison, Judgement, with_base_model, with_baselines
from smoa_lightning.ablation.report.folder import BaseModelScore, same_rows
from smoa_lightning.ablation.report.paired_cells import scores_of
from smoa_lightning.ablation.statistics import at_level, common_level, mean_interval, shared_scores
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.metric_table import METRICS

START = "base model"  # in the place of the value of the axis


@dataclass(frozen=True)
class ByMetric:
    """The cells of a study and their base models by one metric; a cell without a base model has none."""

    cells: Sequence[CellResult]
    bases: Mapping[str, BaseModelScore]


@dataclass(frozen=True)
class Curve:
    """The cells that differ only on the axis of the trade-off.

    Args:
        name: Their labels on the other axes.
        cells: Their results by the cost, in the order of the axis.
        at: Name of a cell -> its mean score by the other metric.
        level: The level of this score at which the cost is compared; None if the curve has no cost there.
        place: The two values of the axis between which the level is reached.
        cost: The cost there, as the result of a cell; None if the curve has none.
    """

    name: str
    cells: tuple[CellResult, ...]
    at: Mapping[str, float]
    level: float | None = None
    place: tuple[str, str] = ("", "")
    cost: CellResult | None = None


@dataclass(frozen=True)
class TradeOffResult:
    """The numbers of a trade-off.

    Args:
        plan: ``trade_off`` of ``study.json``.
        curves: The curves in the order of the study.
        comparisons: Costs at the level, compared with that of the curve of the baseline.
        gains: The same compared with the base model.
        refused: Why curves cannot be compared, one sentence each.
        base_models: Score by ``at`` and cost of each base model.
    """

    plan: Mapping[str, Any]
    curves: tuple[Curve, ...]
    comparisons: tuple[Comparison, ...]
    gains: tuple[Comparison, ...]
    refused: tuple[str, ...]
    base_models: tuple[tuple[float, float], ...]


def trade_off(description: Mapping[str, Any], cost: ByMetric, at: ByMetric) -> TradeOffResult:
    """Compute the trade-off of a study.

    Args:
        description: Contents of ``study.json``, with ``trade_off``.
        cost: The study by the cost.
        at: The study by the metric that is the same for all.
    """
    plan = description["trade_off"]
    scores = {cell.name: cell for cell in at.cells}
    curves = _curves(cost.cells, plan["along"], scores)
    families = description["baselines"] or same_rows(description)
    levels, refused = _levels(curves, at.bases, plan, families)
    found: list[Curve] = []
    for curve in curves:
        first = curve.cells[0].name
        if first not in levels:
            found.append(curve)
            continue
        try:
            found.append(_at_level(curve, levels[first], at.bases[first], cost.bases.get(first), plan, scores))
        except UserError as error:
            found.append(curve)
            refused.append(f"{curve.name} has no {plan['cost']} at the level: {error}")
    bases = {id(at.bases[n]): (at.bases[n].score, own.score) for n, own in cost.bases.items() if n in at.bases}
    compared, gains, more = _compared(found, description["baselines"], cost.bases, plan)
    return TradeOffResult(plan, tuple(found), compared, gains, (*refused, *more), tuple(bases.values()))


def _curves(cells: Sequence[CellResult], along: str, scores: Mapping[str, CellResult]) -> list[Curve]:
    """Return the cells with runs in groups with the same labels on all other axes, in the order of the axis."""
    groups: dict[str, list[CellResult]] = {}
    for cell in cells:
        parts = zip(cell.labels, cell.name.split(","), strict=True)  # a label has no comma
        if cell.runs and scores[cell.name].runs:
            groups.setdefault(",".join(part for axis, part in parts if axis != along), []).append(cell)
    found = []
    for name, own in groups.items():
        own.sort(key=lambda cell: float(cell.labels[along]))
        found.append(Curve(name or "all cells", tuple(own), {cell.name: _mean(scores[cell.name]) for cell in own}))
    return found


def _levels(
    curves: Sequence[Curve], bases: Mapping[str, BaseModelScore], plan: Mapping[str, Any], families: Mapping[str, str]
) -> tuple[dict[str, float], list[str]]:
    """Return the first cell of a curve -> the level of all curves of its family; and why others have none."""
    higher = METRICS[plan["at"]].direction == "maximize"
    sign = 1 if higher else -1
    known: dict[str, list[tuple[str, float, float]]] = {}
    refused: list[str] = []
    for curve in curves:
        base, best = bases.get(curve.cells[0].name), sign * max(sign * score for score in curve.at.values())
        if base is None:
            refused.append(f"{curve.name} has no level of {plan['at']}: the base model was not scored")
        elif sign * best <= sign * base.score:
            refused.append(f"{curve.name} has no level of {plan['at']}: no point is better than the base model")
        else:
            first = curve.cells[0].name
            known.setdefault(families[first], []).append((first, base.score, best))
    levels: dict[str, float] = {}
    for family in known.values():
        names, starts, best_scores = zip(*family, strict=True)
        levels |= dict.fromkeys(names, common_level(starts, best_scores, plan["share"], higher))
    return levels, refused


def _at_level(
    curve: Curve,
    level: float,
    start: BaseModelScore,
    base: BaseModelScore | None,
    plan: Mapping[str, Any],
    scores: Mapping[str, CellResult],
) -> Curve:
    """Return a curve with its cost at a level.

    Raises:
        UserError: The base model has no scores of the items, or the cells of the curve share no seed or no item.
    """
    shared = shared_scores([scores_of(cell) for cell in curve.cells])
    seeds, every = cast("tuple[int, ...]", shared.seeds), cast("tuple[tuple[str, int], ...]", shared.items)
    starts = [start.of(seed) for seed in seeds]
    known = [_by_item(None if base is None else base.of(seed)) for seed in seeds]
    if alone := [seed for seed, own, items in zip(seeds, starts, known, strict=True) if own is None or not items]:
        raise UserError(
            "the base model has no score of its items" + ("" if len(alone) == len(seeds) else f" with seed {alone[0]}")
        )
    columns = [n for n, item in enumerate(every) if all(item in own for own in known)]
    if not columns:
        raise UserError("the base model has no score of its items")
    items = tuple(every[n] for n in columns)
    values = shared.values[:, :, columns]
    before = np.array([[own[item] for item in items] for own in known])
    by_seed = [{run.seed: run.score for run in scores[cell.name].runs} for cell in curve.cells]
    if any(seed not in own for seed in seeds for own in by_seed):
        raise UserError(f"a run has no {plan['at']}")
    x = np.array(
        [[own.score for own in starts if own is not None], *([own[seed] for seed in seeds] for own in by_seed)]
    )
    higher = METRICS[plan["at"]].direction == "maximize"
    cost, reached, _ = at_level(x, np.concatenate([before[None], values]), level, higher)
    places = [START, *(cell.labels[plan["along"]] for cell in curve.cells)]
    last = curve.cells[reached - 1]
    runs = {run.seed: run for run in last.runs}
    means = cost.mean(axis=1)
    made = tuple(
        replace(runs[seed], cell=curve.name, score=float(mean), items=items, values=own, secondary={})
        for seed, own, mean in zip(seeds, cost, means, strict=True)
    )
    result = replace(last, name=curve.name, runs=made, estimate=mean_interval(means), iqm=None, costs={})
    return replace(curve, level=level, place=(places[reached - 1], places[reached]), cost=result)


def _by_item(base: BaseModelScore | None) -> dict[tuple[str, int], float]:
    return {} if base is None else dict(zip(base.items, base.values.tolist(), strict=True))


def _compared(
    curves: Sequence[Curve], baselines: Mapping[str, str], bases: Mapping[str, BaseModelScore], plan: Mapping[str, Any]
) -> tuple[tuple[Comparison, ...], tuple[Comparison, ...], tuple[str, ...]]:
    """Compare the costs of curves with that of the curve of the baseline, and with that of the base model."""
    judge = Judgement(str(METRICS[plan["cost"]].direction), plan["margin"])
    costs = [curve.cost for curve in curves if curve.cost is not None]
    names = {cell.name: curve.name for curve in curves for cell in curve.cells}
    of_curves = {names[cell]: names[other] for cell, other in baselines.items() if cell in names and other in names}
    compared, refused = with_baselines(costs, of_curves, judge)
    own = {c.name: bases[c.cells[0].name] for c in curves if c.cells[0].name in bases}
    return compared, with_base_model(costs, own, judge), refused


def _mean(cell: CellResult) -> float:
    assert cell.estimate is not None  # a cell with runs has one
    return cell.estimate.value
