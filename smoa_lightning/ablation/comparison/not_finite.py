"""Metrics and item scores that are not finite numbers: they are named with their run, and no test uses them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from smoa_lightning.ablation.comparison.common_rows import CommonRows
from smoa_lightning.ablation.comparison.scored_run import MEAN, Item, ScoredRun
from smoa_lightning.ablation.comparison.sides import Side
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.records.record import BASE_ITEMS, ITEMS

SHOWN = 5  # rows that a sentence names


def not_finite(sides: Sequence[Side], rows: CommonRows) -> list[str]:
    """Return a sentence for each metric and each file of items with numbers that are not finite."""
    return [sentence for side in sides for run in side.runs for sentence in _of_run(run, rows)]


def _of_run(run: ScoredRun, rows: CommonRows) -> Iterator[str]:
    where = f"of the base model in {run.folder}" if run.part == "base" else f"of {run.folder}"
    for task in [*rows.rows, *([MEAN] if len(rows.rows) > 1 else [])]:
        of = "" if len(rows.rows) == 1 else f" of {task}" if task != MEAN else " of the mean of all tasks"
        for name in run.metrics(task):
            number = run.metric(task, name)
            if number is not None and not math.isfinite(number):
                yield f"The metric {name}{of} {where} is {number} and not a finite number, so it is not tested."
    for task, own in rows.rows.items():
        found = [row for row in own if not _is_finite(run.items[task, row])]
        if found:
            named = ", ".join(map(str, found[:SHOWN])) + (" and others" if len(found) > SHOWN else "")
            file = run.folder / (BASE_ITEMS if run.part == "base" else ITEMS)
            verb = "has a log-likelihood that is" if len(found) == 1 else "have log-likelihoods that are"
            yield f"In {file}, {counted(len(found), 'row')} of {task} {verb} not finite: {named}."


def _is_finite(item: Item) -> bool:
    numbers = [*item.get("log_likelihood", ()), item.get("nll", 0.0)]
    return bool(np.isfinite(numbers).all())
