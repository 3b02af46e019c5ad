"""Sample predictions of a run: rows that it gets right and rows that it gets wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from smoa_lightning.ablation.comparison.disagreements import gold, is_number, prediction
from smoa_lightning.ablation.comparison.row_texts import RowText, row_texts
from smoa_lightning.ablation.comparison.scored_run import ScoredRun
from smoa_lightning.ablation.comparison.tables import shortened
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.records.metric_table import ACCURACIES, METRICS
from smoa_lightning.records.page.document import Block, Column, Heading, Paragraph, Table

SAMPLES = 6  # rows of each kind


def sample_blocks(run: ScoredRun, base: ScoredRun | None) -> Iterator[Block]:
    """Yield the section on sample predictions.

    Args:
        run: The run.
        base: Its base model, for comparison.
    """
    yield Heading("Sample predictions")
    for task in run.tasks:
        rows = sorted(row for name, row in run.items if name == task)
        groups = _groups(run, task, rows)
        chosen = {title: _evenly(own, SAMPLES) for title, own in groups.items()}
        texts = row_texts(run, task, sorted({row for own in chosen.values() for row in own}))
        if texts.missing:
            yield Paragraph(texts.missing)
        for number, (title, own) in enumerate(chosen.items()):
            if own:
                share = f"{counted(len(groups[title]), 'row')} of {len(rows):,}"
                caption = f"{task}, {title}: {share}, of which {len(own)} are shown."
                yield _table(f"samples_{task}_{number}", caption, run, base, task, own, texts.rows)


def _groups(run: ScoredRun, task: str, rows: Sequence[int]) -> dict[str, list[int]]:
    """Return the wrong and the right rows; all rows if replies are compared as texts, and if they have numbers."""
    score = METRICS[accuracy(run, task)].item
    assert score is not None
    found: dict[str, list[int]] = {"wrong": [], "right": []}
    for row in rows:
        right = score(run.items[task, row])
        if right is None:
            return {"numbers" if is_number(run.items[task, row]) else "replies": list(rows)}
        found["right" if right > 0.5 else "wrong"].append(row)
    return found


def accuracy(run: ScoredRun, task: str) -> str:
    """Return the accuracy of a task: its primary metric, or the first one."""
    primary = run.tasks[task].primary
    return primary if primary in ACCURACIES else ACCURACIES[0]


def _evenly(rows: Sequence[int], count: int) -> list[int]:
    """Return ``count`` rows at even distances.

    >>> _evenly([3, 5, 8, 9, 12], 3)
    [3, 8, 12]
    """
    if len(rows) <= count:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (count - 1))] for number in range(count)]


def _table(
    name: str, caption: str, run: ScoredRun, base: ScoredRun | None, task: str, rows: Sequence[int], texts: Any
) -> Table:
    choices = any(text.choices for text in texts.values())
    metric = accuracy(run, task)
    lines = []
    for row in rows:
        item, text = run.items[task, row], texts.get(row)
        before = base.items.get((task, row)) if base is not None else None
        said = [_said(each, text, metric) for each in (item, before)]
        right = _choices(item, text) if choices and text is not None else gold(item, text)
        lines.append((str(row), *(shortened(each) for each in ("" if text is None else text.prompt, right, *said))))
    titles = ["row", "prompt", "choices" if choices else "right", "prediction", "base model"]
    caption += " ✓ is the right choice; numbers in brackets are log-likelihoods." if choices else ""
    kept = [place for place, _ in enumerate(titles) if any(line[place] for line in lines)]
    kinds = tuple(Column(titles[place], titles[place] == "row") for place in kept)
    return Table(name, caption, kinds, tuple(tuple(line[place] for place in kept) for line in lines))


def _said(item: Any, text: RowText | None, metric: str) -> str:
    return "" if item is None else prediction(item, text, metric)


def _choices(item: Any, text: RowText) -> str:
    """Return the choices, one a line, with their log-likelihoods; the right one has a mark."""
    scores = item.get("log_likelihood", ())
    lines = []
    for number, choice in enumerate(text.choices):
        known = number < len(scores) and math.isfinite(scores[number])
        score = f" ({scores[number]:.2f})" if known else ""
        lines.append(f"{'✓ ' if number == item.get('label') else ''}{number}: {choice}{score}")
    return "\n".join(lines)
