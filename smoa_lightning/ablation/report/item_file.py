"""The scores of all items of a study as one compressed CSV file, from which its tables can be computed again."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.csv_files import Entry
from smoa_lightning.ablation.report.folder import BaseModelScore, FinishedRun, Scored
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.csv_text import csv_text

ITEM_FILE = "items.csv.gz"
DIGITS = 7  # significant digits of a score
BASE = "base model"  # in the place of a run's name
Place = tuple[str, int]


def item_file(analysis: Analysis) -> bytes:
    """Return the file: one line for each run and item, the base models last.

    The columns are ``run`` (``base model`` before training), ``cell`` (of a base model, the first cell that is compared
    with it), ``seed`` (empty if all seeds share the base model), ``task`` (empty if there is only one), ``row``,
    ``group`` (empty if the item is a group of its own), and the score of the item by each metric of the report. The
    same scores give the same bytes.

    Raises:
        UserError: The metrics of the study have no scores of items.
    """
    names = list(dict.fromkeys([*(cell.metric for cell in analysis.cells), *analysis.secondary]))
    lines = list(_lines(analysis, names))
    if not lines:
        raise UserError(f"report: --items needs scores of items, but {', '.join(names)} of this study has none")
    text = csv_text([["run", "cell", "seed", "task", "row", "group", *names], *lines])
    return gzip.compress(text.encode(), mtime=0)


def _lines(analysis: Analysis, names: list[str]) -> Iterator[list[Entry]]:
    for cell in analysis.cells:
        for run in cell.runs:
            scores = _scores(run, cell.metric)
            yield from _of_items([run.name, cell.name, run.seed], scores, run.groups, names)
    for base, cells in analysis.base_models:
        for seed, own in base.by_seed.items() if base.by_seed else [(None, base)]:
            yield from _of_items([BASE, cells[0].name, seed], _scores(own, cells[0].metric), {}, names)


def _scores(scored: FinishedRun | BaseModelScore, metric: str) -> dict[str, Mapping[Place, float]]:
    """Return metric -> item -> score."""
    all_of = {metric: Scored(scored.score, scored.items, scored.values), **scored.secondary}
    return {name: dict(zip(own.items, own.values.tolist(), strict=True)) for name, own in all_of.items()}


def _of_items(
    start: list[Entry], scores: Mapping[str, Mapping[Place, float]], groups: Mapping[Place, Place], names: list[str]
) -> Iterator[list[Entry]]:
    for item in dict.fromkeys(item for own in scores.values() for item in own):
        values = [scores.get(name, {}).get(item) for name in names]
        shown = [None if value is None else float(f"{value:.{DIGITS}g}") for value in values]
        yield [*start, item[0], item[1], groups[item][1] if item in groups else None, *shown]
