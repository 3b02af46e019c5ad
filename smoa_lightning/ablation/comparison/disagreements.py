"""The rows that one side gets right and the other side wrong, with both predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoa_lightning.ablation.comparison.common_rows import CommonRows
from smoa_lightning.ablation.comparison.differences import item_scores
from smoa_lightning.ablation.comparison.row_texts import RowText, row_texts
from smoa_lightning.ablation.comparison.shared_seeds import paired_sides
from smoa_lightning.ablation.comparison.sides import Side
from smoa_lightning.records.metric_table import COMMON, METRICS, prediction_field

LARGEST = 20  # rows without right and wrong that are shown for each side


@dataclass(frozen=True)
class Disagreement:
    """A row on which a side and the baseline differ.

    With an accuracy it is a row that one gets right and the other wrong, in all seeds of both. Replies that are
    compared as texts, and numbers, have no right and wrong: then it is one of the rows with the largest differences of
    ``nll`` or ``mse``.

    Attributes:
        task: The task.
        row: Its row in the report split.
        side: Label of the side that is compared with the baseline.
        side_is_better: Whether the side is right, or has the better score; else the baseline.
        by: The accuracy, ``nll`` or ``mse``.
        text: Prompt and choices; None if the data of the run cannot be read.
        gold: The right choice, the right answer, or the gold reply.
        predictions: What the side and what the baseline predicts.
    """

    task: str
    row: int
    side: str
    side_is_better: bool
    by: str
    text: RowText | None
    gold: str
    predictions: tuple[str, str]


@dataclass(frozen=True)
class Disagreements:
    """All such rows.

    Attributes:
        rows: The rows, for each side and task those on which the side is better first.
        notes: Why some have no text, or why there are no such rows, one sentence each.
    """

    rows: tuple[Disagreement, ...]
    notes: tuple[str, ...]


def disagreements(sides: Sequence[Side], rows: CommonRows, metrics: Mapping[str, str]) -> Disagreements:
    """Return the rows on which a side and the baseline differ, for all sides.

    Args:
        sides: The sides; the first is the baseline.
        rows: The common rows.
        metrics: Task -> the accuracy that says what is right, for tasks that have one.
    """
    found: list[Disagreement] = []
    notes: list[str] = []
    for task, own in rows.rows.items():
        by = metrics.get(task) or ("mse" if is_number(sides[0].first.items[task, own[0]]) else COMMON)
        pairs = [paired_sides(side, sides[0]) for side in sides[1:]]
        tables = [tuple(_scores(each, task, by, own) for each in pair) for pair in pairs]
        if any(table is None for pair in tables for table in pair):
            notes.append(f"The rows of {task} have no score by {by}.")
            continue
        split = _right_and_wrong if METRICS[by].is_accuracy else _largest
        places = [split(*pair) for pair in tables]
        wanted = sorted({own[place] for pair in places for part in pair for place in part})
        texts = row_texts(sides[0].first, task, wanted)
        notes += [texts.missing] if texts.missing else []
        for (side, baseline), found_places in zip(pairs, places, strict=True):
            for is_better, part in zip((True, False), found_places, strict=True):
                for row in (own[place] for place in part):
                    said = _predictions((side, baseline), task, row, texts.rows.get(row), by)
                    right = gold(side.first.items[task, row], texts.rows.get(row))
                    found.append(Disagreement(task, row, side.label, is_better, by, texts.rows.get(row), right, said))
    return Disagreements(tuple(found), tuple(notes))


def _scores(side: Side, task: str, metric: str, rows: Sequence[int]) -> Any:
    """Return (n, m) scores; None if the rows have none."""
    scores = [item_scores(run, task, metric, rows) for run in side.runs]
    return None if any(each is None for each in scores) else np.array(scores)


def _right_and_wrong(side: Any, baseline: Any) -> tuple[list[int], list[int]]:
    """Return the places of the rows that only the side, and only the baseline, has right in all seeds."""
    mine, theirs = side > 0.5, baseline > 0.5
    only_side = mine.all(axis=0) & ~theirs.any(axis=0)
    only_baseline = theirs.all(axis=0) & ~mine.any(axis=0)
    return np.flatnonzero(only_side).tolist(), np.flatnonzero(only_baseline).tolist()


def _largest(side: Any, baseline: Any) -> tuple[list[int], list[int]]:
    """Return the places of the rows with the largest difference in favour of the side and of the baseline."""
    with np.errstate(invalid="ignore"):
        gain = baseline.mean(axis=0) - side.mean(axis=0)  # a low nll is better
    gain = np.where(np.isfinite(gain), gain, 0.0)
    order = np.argsort(-gain, kind="stable")
    better = [int(place) for place in order[:LARGEST] if gain[place] > 0]
    worse = [int(place) for place in order[::-1][:LARGEST] if gain[place] < 0]
    return better, worse


def _predictions(sides: tuple[Side, Side], task: str, row: int, text: RowText | None, metric: str) -> tuple[str, str]:
    said = [_said([run.items[task, row] for run in side.runs], text, metric) for side in sides]
    return said[0], said[1]


def _said(items: Sequence[Mapping[str, Any]], text: RowText | None, metric: str) -> str:
    """Return the predictions of all seeds, each once."""
    return " / ".join(dict.fromkeys(prediction(item, text, metric) for item in items))


def is_number(item: Mapping[str, Any]) -> bool:
    """Whether an item of a run has a number as its label and its prediction (a regression)."""
    return "prediction" in item


def prediction(item: Mapping[str, Any], text: RowText | None, metric: str) -> str:
    """Return what a run predicts for a row: the number, the choice, or the answer and the reply."""
    if is_number(item):
        return f"{item['prediction']:.2f}"
    chosen = item.get(prediction_field(metric))
    if chosen is not None:
        return _choice(chosen, text)
    if "answer" in item:
        found = "no answer" if item["answer"] is None else str(item["answer"])
        return f"{str(item.get('reply', '')).strip()}\n→ {found}"
    return str(item.get("reply", "")).strip() or "(an empty reply)"


def gold(item: Mapping[str, Any], text: RowText | None) -> str:
    """Return the right choice, the right number or answer, or the gold reply."""
    if "log_likelihood" in item:
        return _choice(item["label"], text)
    label = item.get("label")
    return str(item.get("reference", "") if label in (None, "") else label)


def _choice(number: int, text: RowText | None) -> str:
    known = text is not None and number < len(text.choices)
    return f"{number}: {text.choices[number]}" if known and text else str(number)
