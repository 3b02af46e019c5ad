"""The rows that one side gets right and the baseline wrong, or the other way round; with both predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoa_lightning.ablation.comparison.common_rows import CommonRows
from smoa_lightning.ablation.comparison.differences import item_scores
from smoa_lightning.ablation.comparison.row_texts import RowText, row_texts
from smoa_lightning.ablation.comparison.sides import Side
from smoa_lightning.records.metric_table import METRICS, prediction_field


@dataclass(frozen=True)
class Disagreement:
    """A row that one of two sides gets right and the other wrong, in all seeds of both.

    Attributes:
        task: The task.
        row: Its row in the report split.
        side: Label of the side that is compared with the baseline.
        side_is_right: Whether the side is right; else the baseline is.
        text: Prompt and choices; None if the data of the run cannot be read.
        gold: The right choice or answer.
        predictions: What the side and what the baseline predicts.
    """

    task: str
    row: int
    side: str
    side_is_right: bool
    text: RowText | None
    gold: str
    predictions: tuple[str, str]


@dataclass(frozen=True)
class Disagreements:
    """All such rows.

    Attributes:
        rows: The rows, for each side and task those that the side gets right first.
        notes: Why some have no text or why there are no such rows, one sentence each.
    """

    rows: tuple[Disagreement, ...]
    notes: tuple[str, ...]


def disagreements(sides: Sequence[Side], rows: CommonRows, metrics: Mapping[str, str]) -> Disagreements:
    """Return the rows of all sides that only one of a side and the baseline gets right.

    Args:
        sides: The sides; the first is the baseline.
        rows: The common rows.
        metrics: Task -> the accuracy that says what is right.
    """
    found: list[Disagreement] = []
    notes: list[str] = []
    for task, own in rows.rows.items():
        right = [_right(side, task, metrics[task], own) for side in sides] if task in metrics else []
        known = [each for each in right if each is not None]
        if not known or len(known) < len(sides):
            notes.append(f"The rows of {task} have no right and wrong: its replies are compared as texts.")
            continue
        places = [_places(each, known[0]) for each in known[1:]]
        wanted = sorted({own[place] for pair in places for part in pair for place in part})
        texts = row_texts(sides[0].first, task, wanted)
        notes += [texts.missing] if texts.missing else []
        for side, pair in zip(sides[1:], places, strict=True):
            for side_is_right, part in zip((True, False), pair, strict=True):
                found += [
                    _disagreement(side, sides[0], task, own[place], side_is_right, texts.rows.get(own[place]), metrics)
                    for place in part
                ]
    return Disagreements(tuple(found), tuple(notes))


def _right(side: Side, task: str, metric: str, rows: Sequence[int]) -> Any:
    """Return (n, m) booleans; None if the rows have no right and wrong."""
    scores = [item_scores(run, task, metric, rows) for run in side.runs]
    if not METRICS[metric].is_accuracy or any(each is None for each in scores):
        return None
    return np.array(scores) > 0.5


def _places(side: Any, baseline: Any) -> tuple[list[int], list[int]]:
    """Return the places of the rows that only the side, and only the baseline, has right in all seeds."""
    only_side = side.all(axis=0) & ~baseline.any(axis=0)
    only_baseline = baseline.all(axis=0) & ~side.any(axis=0)
    return np.flatnonzero(only_side).tolist(), np.flatnonzero(only_baseline).tolist()


def _disagreement(
    side: Side, baseline: Side, task: str, row: int, right: bool, text: RowText | None, metrics: Mapping[str, str]
) -> Disagreement:
    items = [[run.items[task, row] for run in each.runs] for each in (side, baseline)]
    said = tuple(_said(each, text, metrics[task]) for each in items)
    return Disagreement(task, row, side.label, right, text, gold(items[0][0], text), (said[0], said[1]))


def _said(items: Sequence[Mapping[str, Any]], text: RowText | None, metric: str) -> str:
    """Return the predictions of all seeds, each once."""
    return " / ".join(dict.fromkeys(prediction(item, text, metric) for item in items))


def prediction(item: Mapping[str, Any], text: RowText | None, metric: str) -> str:
    """Return what a run predicts for a row: the choice, or the answer and the reply."""
    chosen = item.get(prediction_field(metric))
    if chosen is not None:
        return _choice(chosen, text)
    if "answer" in item:
        found = "no answer" if item["answer"] is None else str(item["answer"])
        return f"{str(item.get('reply', '')).strip()}\n→ {found}"
    return str(item.get("reply", ""))


def gold(item: Mapping[str, Any], text: RowText | None) -> str:
    """Return the right choice, the right answer, or the gold reply."""
    if "log_likelihood" in item:
        return _choice(item["label"], text)
    return str(item.get("label") or item.get("reference", ""))


def _choice(number: int, text: RowText | None) -> str:
    known = text is not None and number < len(text.choices)
    return f"{number}: {text.choices[number]}" if known and text else str(number)
