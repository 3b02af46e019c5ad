"""Paired tests of each side against the baseline, for every metric and task."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smoa_lightning.ablation.comparison.common_rows import CommonRows
from smoa_lightning.ablation.comparison.scored_run import MEAN, ScoredRun
from smoa_lightning.ablation.comparison.shared_seeds import paired_sides, run_pairs
from smoa_lightning.ablation.comparison.sides import Side
from smoa_lightning.ablation.comparison.teachers import have_one_teacher, needs_one_teacher
from smoa_lightning.ablation.report.cells import decimals, unit
from smoa_lightning.ablation.statistics import (
    MINIMUM_SEEDS,
    Difference,
    Verdict,
    accuracy_difference,
    common_groups,
    counted,
    crossed_difference,
    holm,
    item_difference,
    mcnemar,
    mean_of_accuracy_differences,
    mean_of_differences,
    paired_difference,
    perplexity_scores,
    verdict,
)
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.metric_table import item_scores as scores_of_items

ROWS = re.compile(r"(, [\d,]+) item(s?)")  # a comparison counts rows where statistics count items
MCNEMAR, ITEMS, TASKS = "exact McNemar", "paired t over rows", "paired t over rows of all tasks"
CROSSED, SEEDS, NO_TEST = "paired t over seeds and rows", "paired t over seeds", "none"
GROUPS, CROSSED_GROUPS = "paired t over groups of rows", "paired t over seeds and groups of rows"
Found = tuple[Difference, str, tuple[int, int] | None]  # with the test and the counts of the rows that one has right


@dataclass(frozen=True)
class Comparison:
    """A side compared with the baseline by one metric of one task.

    Attributes:
        side: Label of the side.
        baseline: Label of the baseline.
        task: The task; ``MEAN`` is the mean of all tasks.
        metric: The metric.
        values: The mean over the shared seeds of the side and of the baseline.
        difference: The side minus the baseline.
        test: Where p comes from.
        adjusted: p after Holm's correction over all comparisons by this metric.
        only: Numbers of rows that only the side and only the baseline has right; None unless each is one model.
        verdict: The sentence of the comparison.
        is_finite: Whether all values and scores of rows are finite numbers; if not, there is no test.
    """

    side: str
    baseline: str
    task: str
    metric: str
    values: tuple[float, float]
    difference: Difference
    test: str
    adjusted: float | None
    only: tuple[int, int] | None
    verdict: Verdict
    is_finite: bool = True


def compare_sides(sides: Sequence[Side], rows: CommonRows) -> list[Comparison]:
    """Compare all sides with the first one.

    Raises:
        UserError: A side and the baseline have no seed in common.
    """
    found: list[Comparison] = []
    tasks = [*rows.rows, *([MEAN] if len(rows.rows) > 1 else [])]
    for task in tasks:
        for metric in METRICS:
            for side in sides[1:]:
                compared = _compared(side, sides[0], task, metric, rows)
                found += [] if compared is None else [compared]
    return _judged(found)


def item_scores(run: ScoredRun, task: str, metric: str, rows: Sequence[int]) -> NDArray[np.float64] | None:
    """Return the score of each row by a metric; None if the rows have no such score."""
    items = [run.items[task, row] for row in rows]
    if metric == "perplexity" and all("nll" in item for item in items):
        return perplexity_scores([item["nll"] for item in items], [item["tokens"] for item in items])
    scores = scores_of_items(items, metric)
    return None if scores is None else np.array(scores, dtype=np.float64)


def row_groups(
    pairs: Sequence[tuple[ScoredRun, ScoredRun]], task: str, rows: Sequence[int]
) -> Sequence[Hashable] | None:
    """Return the group of each row by the runs; None if each row is a group of its own."""
    runs = [run for pair in pairs for run in pair]
    known = ({r: run.items[task, r]["group"] for r in rows if "group" in run.items[task, r]} for run in runs)
    return common_groups(known, rows)


def value(run: ScoredRun, task: str, metric: str, rows: CommonRows) -> float | None:
    """Return a metric of a run on the common rows; None if the run, or the common rows alone, do not have it."""
    recorded = run.metric(task, metric)
    if rows.complete or recorded is None:
        return recorded
    if task == MEAN:
        each = [value(run, name, metric, rows) for name in rows.rows]
        known = [number for number in each if number is not None]
        return sum(known) / len(known) if len(known) == len(each) else None
    scores = item_scores(run, task, metric, rows.rows[task])
    return None if scores is None else float(scores.mean())


def _compared(side: Side, baseline: Side, task: str, metric: str, rows: CommonRows) -> Comparison | None:
    """Return a comparison before the correction; None if a run does not have the metric."""
    if needs_one_teacher(metric) and not have_one_teacher([*side.runs, *baseline.runs]):
        return None
    pairs = run_pairs(side, baseline)
    values = [[value(run, task, metric, rows) for run in each.runs] for each in paired_sides(side, baseline)]
    if any(number is None for numbers in values for number in numbers):
        return None
    means = [sum(number for number in numbers if number is not None) / len(numbers) for numbers in values]
    empty = Verdict(False, None, "")
    if not _is_finite(pairs, means, task, metric, rows):
        size = Difference(means[0] - means[1], None, None, None, None, None, len(pairs), None, "seeds")
        place = (side.label, baseline.label, task, metric, (means[0], means[1]))
        return Comparison(*place, size, NO_TEST, None, None, empty, is_finite=False)
    found: Found | None
    if task == MEAN and len(pairs) == 1:
        found = _mean_of_tasks(*pairs[0], metric, rows)
    else:
        found = None if task == MEAN else _of_items(pairs, task, metric, rows)
    difference, test, only = found or _of_values(pairs, task, metric, rows)
    return Comparison(
        side.label, baseline.label, task, metric, (means[0], means[1]), difference, test, None, only, empty
    )


def _is_finite(
    pairs: Sequence[tuple[ScoredRun, ScoredRun]], means: Sequence[float], task: str, metric: str, rows: CommonRows
) -> bool:
    """Return whether the values of a metric, and the scores of its rows, are finite numbers."""
    if not np.isfinite(means).all():
        return False
    tasks = rows.rows if task == MEAN else {task: rows.rows[task]}
    scores = (item_scores(run, name, metric, own) for pair in pairs for run in pair for name, own in tasks.items())
    return all(each is None or np.isfinite(each).all() for each in scores)


def _of_items(pairs: Sequence[tuple[ScoredRun, ScoredRun]], task: str, metric: str, rows: CommonRows) -> Found | None:
    """Compare by the scores of rows; None if the rows have none."""
    scores = [[item_scores(run, task, metric, rows.rows[task]) for run in pair] for pair in pairs]
    if any(each is None for pair in scores for each in pair):
        return None
    mine, theirs = (np.array([pair[side] for pair in scores]) for side in (0, 1))
    groups = row_groups(pairs, task, rows.rows[task])
    if len(pairs) > 1:
        if min(mine.shape[1], len(set(groups or rows.rows[task]))) < 2:
            return None
        found = crossed_difference(mine, theirs, groups=groups)
        return found, CROSSED if found.n_groups is None else CROSSED_GROUPS, None
    if not METRICS[metric].is_accuracy:
        found = item_difference(mine[0], theirs[0], groups=groups)
        return found, ITEMS if found.n_groups is None else GROUPS, None
    counts = mcnemar(mine[0], theirs[0])
    found = accuracy_difference(mine[0], theirs[0], groups=groups)
    test = MCNEMAR if found.n_groups is None else GROUPS
    return found, test, (counts.only_first, counts.only_second)


def _mean_of_tasks(one: ScoredRun, two: ScoredRun, metric: str, rows: CommonRows) -> Found | None:
    """Compare two models by the mean of all tasks; None if the rows of a task have no scores."""
    known, units = [], []
    for name, own in rows.rows.items():
        mine, theirs = (item_scores(run, name, metric, own) for run in (one, two))
        if mine is None or theirs is None:
            return None
        known.append((mine, theirs))
        units.append(row_groups([(one, two)], name, own))
    if METRICS[metric].is_accuracy:
        return mean_of_accuracy_differences(known, groups=units), TASKS, None
    each = [item_difference(*pair, groups=groups) for pair, groups in zip(known, units, strict=True)]
    return mean_of_differences(each), TASKS, None


def _of_values(pairs: Sequence[tuple[ScoredRun, ScoredRun]], task: str, metric: str, rows: CommonRows) -> Found:
    """Compare by the values of whole runs: over seeds, and without a test for one seed."""
    mine, theirs = (np.array([value(pair[side], task, metric, rows) for pair in pairs]) for side in (0, 1))
    found = paired_difference(mine, theirs)
    return found, SEEDS if found.p is not None else NO_TEST, None


def _judged(found: Sequence[Comparison]) -> list[Comparison]:
    """Correct p over all comparisons by the same metric, and write the verdicts."""
    adjusted: dict[int, float | None] = {}
    for metric in dict.fromkeys(each.metric for each in found):
        places = [place for place, each in enumerate(found) if each.metric == metric]
        adjusted |= dict(zip(places, holm([found[place].difference.p for place in places]), strict=True))
    return [replace(each, adjusted=adjusted[place], verdict=_verdict(each, adjusted[place]))
            for place, each in enumerate(found)]  # fmt: skip


def _verdict(each: Comparison, p: float | None) -> Verdict:
    metric, (scale, name) = METRICS[each.metric], unit(each.metric)
    if metric.direction is None:
        return Verdict(False, None, f"{each.metric} has no better direction.")
    sizes = f"{each.metric} is {each.values[0] * scale:.4g} for {each.side} and {each.values[1] * scale:.4g} for"
    if not each.is_finite:
        reason = "not tested, since not all of its numbers are finite."
        return Verdict(False, None, f"{sizes} {each.baseline}: {reason}")
    one = each.difference.method == "items"
    if not one and each.difference.n_seeds == 1:
        return Verdict(False, None, f"{sizes} {each.baseline}: not tested, since single rows have no {each.metric}.")
    judged = verdict(
        each.side, each.baseline, each.difference, p, higher_is_better=metric.direction == "maximize", scale=scale,
        unit=name, digits=decimals(each.metric), minimum_seeds=1 if one else MINIMUM_SEEDS,
    )  # fmt: skip
    sentence = ROWS.sub(r"\1 row\2", judged.sentence)
    sentence = sentence.replace(", 1 seed,", ",") if one else sentence
    return replace(judged, sentence=sentence)


def only_sentence(each: Comparison) -> str:
    """Return how many rows only one of the two has right; empty if this is not known."""
    if each.only is None:
        return ""
    mine, theirs = each.only
    return f"{each.side} alone is right on {counted(mine, 'row')}, {each.baseline} alone on {counted(theirs, 'row')}."
