"""A comparison as tables: scores, differences, settings, records and rows; text for readers, numbers for files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smoa_lightning.ablation.comparison.common_rows import CommonRows
from smoa_lightning.ablation.comparison.differences import Comparison, value
from smoa_lightning.ablation.comparison.disagreements import Disagreement, Disagreements
from smoa_lightning.ablation.comparison.scored_run import MEAN
from smoa_lightning.ablation.comparison.settings import FACTS, fact, fact_text
from smoa_lightning.ablation.comparison.sides import Side
from smoa_lightning.ablation.report.cells import decimals, unit
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.ablation.statistics.verdict import p_text
from smoa_lightning.records.metric_table import METRICS, measured
from smoa_lightning.records.page.document import Column, Table, columns

MOST_COLUMNS = 5  # sides with a column each on a page
SHORT = 400  # letters of a text in a table of the page
Lines = list[list[Any]]  # a table of a file: the titles, then the rows


@dataclass(frozen=True)
class Compared:
    """Everything that a comparison found.

    Attributes:
        sides: The sides; the first is the baseline.
        rows: The common rows.
        comparisons: The paired tests.
        metric: The metric of the first sentence and of right and wrong.
        settings: Setting that differs -> its value in each side.
        disagreements: The rows that only one of two sides gets right.
        left_out: Which seeds are not compared, since the other side does not have them; empty if there are none.
        notes: Sentences on what is not tested (numbers that are not finite, different teachers), and on sizes.
    """

    sides: Sequence[Side]
    rows: CommonRows
    comparisons: Sequence[Comparison]
    metric: str
    settings: Mapping[str, Sequence[str]]
    disagreements: Disagreements
    left_out: str = ""
    notes: Sequence[str] = ()

    @property
    def tasks(self) -> list[str]:
        """The tasks, and with several tasks their mean first."""
        return [*([MEAN] if len(self.rows.rows) > 1 else []), *self.rows.rows]

    @property
    def main(self) -> list[Comparison]:
        """The comparisons by the main metric, of the only task or of the mean of all tasks."""
        return [each for each in self.comparisons if each.metric == self.metric and each.task == self.tasks[0]]

    @property
    def metrics(self) -> list[str]:
        """All metrics, the main one first."""
        runs = [(task, run) for task in self.tasks for side in self.sides for run in side.runs]
        names = [name for name in METRICS if any(run.metric(task, name) is not None for task, run in runs)]
        return sorted(names, key=lambda name: name != self.metric)

    def task_name(self, task: str) -> str:
        """Return the name of a task for tables."""
        return f"mean of {len(self.rows.rows)} tasks" if task == MEAN else task


def scores(found: Compared) -> Table:
    """Return the scores of all sides, one row a side and task."""
    several = len(found.tasks) > 1
    rows = []
    for task in found.tasks:
        for side in found.sides:
            texts = [_score(side, task, name, found.rows) for name in found.metrics]
            if any(texts):
                rows.append((side.label, *([found.task_name(task)] if several else []), *texts))
    titles = ["run", *(["task"] if several else []), *found.metrics]
    return Table("scores", _scores_caption(found), columns(titles, 1 + several), tuple(rows))


def scores_down(found: Compared) -> Table:
    """Return the scores of a few sides, one column a side, which fits on a page however many metrics there are."""
    if len(found.sides) > MOST_COLUMNS:
        return scores(found)
    several = len(found.tasks) > 1
    rows = []
    for task in found.tasks:
        for name in found.metrics:
            texts = [_score(side, task, name, found.rows) for side in found.sides]
            if any(texts):
                rows.append((*([found.task_name(task)] if several else []), name, *texts))
    titles = [*(["task"] if several else []), "metric", *(side.label for side in found.sides)]
    return Table("scores", _scores_caption(found), columns(titles, 1 + several), tuple(rows))


def _scores_caption(found: Compared) -> str:
    groups = any(len(side.runs) > 1 for side in found.sides)
    spread = "Means over seeds." if groups else "± is the standard error over rows or their groups."
    return f"Scores of {counted(found.rows.number, 'report row')}. {spread}"


def _score(side: Side, task: str, name: str, rows: CommonRows) -> str:
    values = [value(run, task, name, rows) for run in side.runs]
    known = [each for each in values if each is not None]
    if len(known) < len(values):
        return ""
    mean = sum(known) / len(known)
    digits = 4 if abs(mean) < 2 else 2
    error = side.first.metric(task, f"{name}_stderr") if len(values) == 1 and rows.complete else None
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def differences(found: Compared) -> Table:
    """Return the differences from the baseline as text."""
    several = len(found.tasks) > 1
    rows = []
    for task in found.tasks:
        for name in found.metrics:
            for each in found.comparisons:
                if (each.task, each.metric) == (task, name):
                    place = [each.side, *([found.task_name(task)] if several else []), name]
                    rows.append((*place, *_difference(each)))
    titles = ["run", *(["task"] if several else []), "metric", "verdict", "test"]
    numbers = ["difference", "standard error", "95 % interval", "p", "p (Holm)", "only it right", "only baseline right"]
    caption = (
        f"Differences from {found.sides[0].label}, with 95 % intervals. p is corrected by Holm's method for all "
        "comparisons by the same metric."
    )
    return Table("differences", caption, columns([*titles, *numbers], len(titles)), tuple(rows))


def _difference(each: Comparison) -> list[str]:
    found, (scale, name) = each.difference, unit(each.metric)
    digits = decimals(each.metric)
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f"[{found.low * scale:+.{digits}f}, {found.high * scale:+.{digits}f}]"
    error = "" if found.standard_error is None else f"{found.standard_error * scale:.{digits}f}"
    only = ["", ""] if each.only is None else [f"{number:,}" for number in each.only]
    label = each.verdict.outcome if found.p is not None else "not tested"
    size = f"{found.value * scale:+.{digits}f} {name}".strip() if math.isfinite(found.value) else ""
    return [label, each.test, size, error, interval, p_text(found.p), p_text(each.adjusted), *only]


def settings(found: Compared) -> Table:
    """Return the settings that differ."""
    titles = ["setting", *(side.label for side in found.sides)]
    rows = tuple((key, *values) for key, values in found.settings.items())
    caption = "Settings that differ and decide the result. Settings of a class that are at their default are left out."
    return Table("settings", caption, columns(titles, len(titles)), rows)


def records(found: Compared) -> Table:
    """Return the facts of the records side by side."""
    titles = ["", *(side.label for side in found.sides)]
    rows = [(title, *(fact_text(side, title) for side in found.sides)) for title in FACTS]
    rows.append(("folder", *(", ".join(str(run.folder) for run in side.runs) for side in found.sides)))
    return Table(
        "records", "Facts from the records of the runs.", columns(titles), tuple(r for r in rows if any(r[1:]))
    )


def disagreement_table(found: Compared, rows: Sequence[Disagreement], name: str, caption: str) -> Table:
    """Return some rows that only one of two sides gets right, with shortened texts."""
    several = len(found.rows.rows) > 1
    side = rows[0].side
    titles = [*(["task"] if several else []), "row", "prompt", "choices", "right", side, found.sides[0].label]
    lines = []
    for each in rows:
        gold = "" if each.text is not None and each.text.choices else each.gold  # the choices have a mark
        texts = (_prompt(each), _choices(each, "✓ "), gold, *each.predictions)
        lines.append((*([each.task] if several else []), str(each.row), *map(shortened, texts)))
    kept = [place for place, title in enumerate(titles) if any(line[place] for line in lines) or title == "row"]
    kinds = tuple(Column(titles[place], titles[place] == "row") for place in kept)
    return Table(name, caption, kinds, tuple(tuple(line[place] for place in kept) for line in lines))


def _prompt(each: Disagreement) -> str:
    return "" if each.text is None else each.text.prompt


def _choices(each: Disagreement, mark: str = "") -> str:
    """Return the choices, one a line; the right one begins with the mark."""
    choices = () if each.text is None else each.text.choices
    lines = (f"{number}: {text}" for number, text in enumerate(choices))
    return "\n".join(mark + line if line == each.gold else line for line in lines)


def shortened(text: str, length: int = SHORT) -> str:
    """Return a text, or its start and its end if it is long."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half].rstrip()} … {text[-half:].lstrip()}"


# ---- files


def files(found: Compared) -> dict[str, Lines]:
    """Return the tables of the files: name -> titles and rows, with numbers as they are."""
    return {
        "differences.csv": _difference_lines(found),
        "records.csv": _record_lines(found),
        "settings.csv": [
            ["setting", *(side.label for side in found.sides)],
            *([key, *texts] for key, texts in found.settings.items()),
        ],
        "rows.csv": _row_lines(found),
    }


def _difference_lines(found: Compared) -> Lines:
    titles = [
        "run", "baseline", "task", "metric", "mean", "baseline_mean", "difference", "standard_error", "low", "high",
        "p", "p_holm", "test", "seeds", "rows", "only_run_right", "only_baseline_right", "verdict", "groups",
    ]  # fmt: skip
    lines: Lines = [titles]
    for each in found.comparisons:
        d, only = each.difference, each.only or (None, None)
        label = each.verdict.outcome if d.p is not None else "not tested"
        place = [each.side, each.baseline, found.task_name(each.task), each.metric, *each.values]
        lines.append([*place, d.value, d.standard_error, d.low, d.high, d.p, each.adjusted, each.test, d.n_seeds,
                      d.n_items, *only, label, d.n_groups])  # fmt: skip
    return lines


def _record_lines(found: Compared) -> Lines:
    """Return one row a run: its facts, and every metric of its record."""
    runs = [(side, run) for side in found.sides if not side.is_base for run in side.runs]
    names = sorted({name for _, run in runs for name in run.record["metrics"]})
    lines: Lines = [["run", "folder", "name", *FACTS, *names]]
    for side, run in runs:
        facts = [fact(run.record, title) for title in FACTS]
        own = [measured(name, run.record["metrics"].get(name)) for name in names]
        lines.append([side.label, str(run.folder), run.record["name"], *facts, *own])
    return lines


def _row_lines(found: Compared) -> Lines:
    baseline = found.sides[0].label
    lines: Lines = [
        ["task", "row", "run", "baseline", "better", "by", "gold", "run_says", "baseline_says", "prompt", "choices"]
    ]
    for each in found.disagreements.rows:
        winner = each.side if each.side_is_better else baseline
        texts = (each.gold, *each.predictions, _prompt(each), _choices(each))
        lines.append([each.task, each.row, each.side, baseline, winner, each.by, *texts])
    return lines
