"""Compare runs: read them, find their common rows, test their differences, and look up the rows that differ."""

from __future__ import annotations

from collections.abc import Sequence

from smoa_lightning.ablation.comparison.common_rows import CommonRows, common_rows
from smoa_lightning.ablation.comparison.differences import Comparison, compare_sides
from smoa_lightning.ablation.comparison.disagreements import disagreements
from smoa_lightning.ablation.comparison.not_finite import not_finite
from smoa_lightning.ablation.comparison.scored_run import MEAN
from smoa_lightning.ablation.comparison.settings import differing_settings
from smoa_lightning.ablation.comparison.shared_seeds import shared_seeds
from smoa_lightning.ablation.comparison.sides import Side, read_sides
from smoa_lightning.ablation.comparison.tables import Compared
from smoa_lightning.ablation.comparison.teachers import different_teachers, needs_one_teacher
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.ablation.statistics.verdict import as_sentence
from smoa_lightning.ablation.study.sizes import different_sizes
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.records.metric_table import COMMON, METRICS
from smoa_lightning.records.score_notes import score_notes


def compare(names: Sequence[str], metric: str | None, baseline: str | None, by_seed: bool) -> Compared:
    """Compare runs with a baseline.

    Args:
        names: Folders of runs; ``base`` is the base model of the first run.
        metric: The main metric; None is that of the task.
        baseline: One of the names, or ``base``; None is the first name.
        by_seed: Whether runs that differ only in their seeds form one side.

    Raises:
        UserError: The runs cannot be compared, or have no such metric.
    """
    sides, left_out = shared_seeds(read_sides(names, baseline, by_seed))
    rows = common_rows(sides)
    found = compare_sides(sides, rows)
    main = _main_metric(sides, rows, found, metric)
    right = {task: name for task in rows.rows if (name := _accuracy(sides, task, main)) is not None}
    differing, only_one = differing_settings(sides), disagreements(sides, rows, right)
    labels = score_notes(run.record for side in sides if not side.is_base for run in side.runs)
    notes = [*labels, *not_finite(sides, rows), *different_teachers(sides), *_sizes(sides)]
    return Compared(sides, rows, found, main, differing, only_one, left_out, notes)


def _sizes(sides: Sequence[Side]) -> list[str]:
    """Return a sentence if sides train different numbers of parameters, else nothing."""
    trained = {
        side.label: max(float(run.record["metrics"].get("parameters/trainable", 0)) for run in side.runs)
        for side in sides
        if not side.is_base
    }
    sentence = different_sizes(trained, what="runs")
    return [as_sentence(sentence)] if sentence else []


def _main_metric(sides: Sequence[Side], rows: CommonRows, found: Sequence[Comparison], asked: str | None) -> str:
    first = MEAN if len(rows.rows) > 1 else next(iter(rows.rows))
    known = [name for name in METRICS if any(each.metric == name and each.task == first for each in found)]
    if not known:
        raise UserError(
            f"compare: the runs have no metric in common on {counted(rows.number, 'row')} that all of them share"
        )
    if asked in METRICS and needs_one_teacher(asked) and (reason := different_teachers(sides)):
        raise UserError(f"compare: --metric {asked}: {reason[0]}")
    if asked is not None and asked not in known:
        raise UserError(
            f"compare: --metric {asked!r} is no metric that all runs have; did you mean {nearest(asked, known, 1)}?"
        )
    primaries = {task.primary for task in sides[0].first.tasks.values()}
    if len(primaries) > 1:  # the primary of the runs is nll, but the rows of choice tasks have none to test
        primaries = {next((name for name in known if METRICS[name].is_accuracy), COMMON)}
    primary = next(iter(primaries))
    return asked or (primary if primary in known else known[0])


def _accuracy(sides: Sequence[Side], task: str, main: str) -> str | None:
    """Return the accuracy that says which rows of a task are right: the main metric, or that of the task."""
    names = [main, sides[0].first.tasks[task].primary]
    return next((name for name in names if name in METRICS and METRICS[name].is_accuracy), None)
