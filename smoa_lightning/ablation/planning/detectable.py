"""What a planned study can detect, as lines of the plan: the smallest difference, and what its margin would need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smoa_lightning.ablation.planning.cell_cost import CellCost
from smoa_lightning.ablation.planning.plan import Plan
from smoa_lightning.ablation.planning.variation import (
    DEFAULT_ITEM_CORRELATION,
    DEFAULT_SEED_SD,
    bounded_accuracy,
)
from smoa_lightning.ablation.statistics import (
    MINIMUM_SEEDS,
    PlannedTest,
    Variances,
    counted,
    detectable_difference,
    items_to_detect,
    seeds_to_detect,
)
from smoa_lightning.records.metric_table import METRICS


@dataclass(frozen=True)
class Detectable:
    """What the comparisons with a baseline can detect.

    Attributes:
        items: Number of report rows, or of documents of the general text.
        difference: Smallest difference that is established with the power of ``test``; ``None`` for one seed.
        with_more_seeds: The same with twice the seeds.
        with_more_items: The same with twice the items.
        variances: Variances of a difference.
        test: How differences will be tested.
    """

    items: int
    difference: float | None
    with_more_seeds: float | None
    with_more_items: float | None
    variances: Variances
    test: PlannedTest


def detectable(plan: Plan, costs: Sequence[CellCost], secondary: str = "") -> dict[str, Detectable | None]:
    """Return what can be detected from each baseline; ``None`` if it is not known how its scores vary.

    The metric is that of the cells, or a secondary one, whose variances must come from finished runs. The items of a
    metric of general text are the documents of these runs, not the report rows.
    Without baselines the first cell is used as the baseline. The number of comparisons is that of the whole table: all
    cells but the baselines. The cells that share a seed variance are those of the baseline.
    """
    by_name = {cost.cell: cost for cost in costs}
    found: dict[str, Detectable | None] = {}
    for name in _baselines(plan):
        rows, n = by_name[name].work.report_rows, len(plan.seeds)
        varies = by_name[name].variation
        varies = varies.secondary[secondary] if secondary else varies
        variances = varies.of(None if secondary else by_name[name].accuracy, rows)
        rows = varies.documents or rows
        if variances is None or rows < 2:
            found[name] = None
            continue
        cells = sum(row.baseline == name for row in plan.rows) or len(plan.rows)
        test = PlannedTest(comparisons=_comparisons(plan), cells=max(2, cells))
        found[name] = Detectable(
            items=rows,
            difference=detectable_difference(n, rows, variances, test),
            with_more_seeds=detectable_difference(2 * n, rows, variances, test),
            with_more_items=detectable_difference(n, 2 * rows, variances, test),
            variances=variances,
            test=test,
        )
    return found


def detectable_lines(plan: Plan, costs: Sequence[CellCost]) -> Iterator[str]:
    """Yield what the plan says about differences."""
    if len(plan.rows) < 2:
        yield "the study has only one cell, so no difference can be tested"
        return
    if 1 < len(plan.seeds) < MINIMUM_SEEDS:
        yield (
            f"with {len(plan.seeds)} seeds the report establishes no difference: plan at least {MINIMUM_SEEDS} seeds, "
            "better five"
        )
    found, by_name = detectable(plan, costs), {cost.cell: cost for cost in costs}
    metrics = {row.cell: row.metric for row in plan.rows}
    if not any(row.baseline for row in plan.rows):
        yield (
            "the study has no baseline, so the report tests no cell against another one, except in contrasts: set one "
            "with baseline: {AXIS: VALUE}"
        )
    for name, smallest in found.items():
        what = _compared(plan, name)
        if smallest is None:
            yield (
                f"smallest detectable difference {what}: not computed, since {metrics[name]} is not an accuracy "
                "and no finished runs show how it varies"
            )
        else:
            yield from _of_baseline(plan, what, metrics[name], smallest)
    known = [by_name[name] for name, smallest in found.items() if smallest is not None]
    if known:
        yield from _sources(known)
    for metric in plan.secondary:
        yield from _of_secondary(plan, metric, costs)


def _of_secondary(plan: Plan, metric: str, costs: Sequence[CellCost]) -> Iterator[str]:
    for name, smallest in detectable(plan, costs, metric).items():
        if smallest is not None:
            yield from _of_baseline(plan, _compared(plan, name), metric, smallest)
        elif metric in plan.margins:
            margin = _margin(plan.margins[metric], metric)
            yield f"the margin of {margin} of {metric}: no finished runs show how it varies"


def _compared(plan: Plan, name: str) -> str:
    """Return what is compared with a cell, in words."""
    return f"from {name}" if any(row.baseline for row in plan.rows) else f"between {name} and another cell"


def _of_baseline(plan: Plan, what: str, metric: str, smallest: Detectable) -> Iterator[str]:
    if smallest.difference is None:
        enough = f"plan at least {MINIMUM_SEEDS} seeds, better five"
        yield f"one seed cannot establish a difference {what}: {enough}"
        return
    assert smallest.with_more_seeds is not None
    assert smallest.with_more_items is not None
    noun = "documents" if METRICS[metric].of_general_text else "items"
    more = noun if smallest.with_more_items < smallest.with_more_seeds else "seeds"
    best = min(smallest.with_more_items, smallest.with_more_seeds)
    n = len(plan.seeds)
    yield (
        f"smallest difference {what} that is detected with a chance of {smallest.test.power:.0%}: "
        f"{_size(smallest.difference, metric)} of {metric}, with {counted(n, 'seed')}, {smallest.items:,} {noun} and "
        f"{counted(smallest.test.comparisons, 'comparison')} at a total level of {smallest.test.alpha:.0%}; twice the "
        f"{more} would help most ({_size(best, metric)})"
    )
    margin = plan.margins.get(metric, plan.margins.get("") if metric not in plan.secondary else None)
    if margin is not None:
        needs = _needs(margin / _scale(metric), n, noun, smallest)
        yield f"the margin of {_margin(margin, metric)}: {needs}"


def _needs(margin: float, n: int, noun: str, smallest: Detectable) -> str:
    """Return whether a margin is detected, and the seeds or items that it needs."""
    enough = n >= MINIMUM_SEEDS  # with fewer the report establishes nothing, however many items there are
    if enough and smallest.difference is not None and smallest.difference <= margin:
        return "this study detects a difference of this size"
    seeds = seeds_to_detect(margin, smallest.items, smallest.variances, smallest.test, least=max(n, MINIMUM_SEEDS))
    rows = items_to_detect(margin, n, smallest.variances, smallest.test) if enough else None
    ways = [f"{seeds} seeds with {smallest.items:,} {noun}"] if seeds else []
    ways += [f"{rows:,} {noun} with {counted(n, 'seed')}"] if rows else []
    if not ways:
        return f"neither more seeds nor more {noun} alone detect a difference of this size: plan more of both"
    return f"a difference of this size needs {' or '.join(ways)}"


def _sources(known: Sequence[CellCost]) -> Iterator[str]:
    for source in dict.fromkeys(cost.variation.source for cost in known if cost.variation.variances is not None):
        yield f"this estimate uses variances over seeds and items {source}"
    known = [cost for cost in known if cost.variation.variances is None]
    if not known:
        return
    yield (
        f"this estimate uses a standard deviation over seeds of {100 * DEFAULT_SEED_SD:.1f} points and a correlation "
        f"of {DEFAULT_ITEM_CORRELATION:.2f} between two cells' answers ({known[0].variation.source}); the effects "
        "of a seed on two cells are taken as independent"
    )
    for cost in known:
        assert cost.accuracy is not None
        accuracy = 100 * bounded_accuracy(cost.accuracy)
        yield f"this estimate uses an accuracy of {accuracy:.0f} % for {cost.cell}: {cost.accuracy_source}"


def _baselines(plan: Plan) -> list[str]:
    return list(dict.fromkeys(row.baseline for row in plan.rows if row.baseline)) or [plan.rows[0].cell]


def _comparisons(plan: Plan) -> int:
    return max(1, len(plan.rows) - len(_baselines(plan)))


def _scale(metric: str) -> float:
    return 100.0 if METRICS[metric].unit == "share" else 1.0


def _size(difference: float, metric: str) -> str:
    """Return a difference: points of a share with one digit, other metrics with three significant digits."""
    return f"{100 * difference:.1f} points" if _scale(metric) > 1 else f"{difference:.3g}"


def _margin(margin: float, metric: str) -> str:
    return f"{margin:g} points" if _scale(metric) > 1 else f"{margin:g}"
