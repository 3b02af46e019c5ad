"""How scores vary over seeds and items in finished runs: of the study, else of another study in the same root."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoa_lightning.ablation.execution.folders import run_folders
from smoa_lightning.ablation.planning.finished_runs import FinishedRuns, finished_record
from smoa_lightning.ablation.statistics import (
    MeanSquares,
    Variances,
    assumed_variances,
    by_groups,
    mean_squares,
    variances_of,
)
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.common.checksums import read_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.items import read_run
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.record import STUDY, STUDY_FACTS

# Assumed values before runs are finished. One point over seeds is usual for a few thousand training rows, and adapters
# of one backbone agree on most items. The plan says that both values are assumed.
DEFAULT_SEED_SD, DEFAULT_ITEM_CORRELATION = 0.01, 0.5
MOST_ACCURATE = 0.95  # even if all of a few rows are right, a task has errors

Pairs = Sequence[tuple[MeanSquares, int, int]]  # of two cells; numbers of seeds and of items
Runs = Mapping[str, Mapping[int, Path]]  # name of a cell -> seed -> folder of a finished final run


@dataclass(frozen=True)
class Variation:
    """How scores vary; the smallest detectable difference is computed from it.

    Attributes:
        variances: Variances of a difference of two cells; ``None`` if no finished runs show them.
        source: Their source.
        documents: For a metric of general text: the documents that the finished runs share.
        secondary: Secondary metric -> the same by it.
    """

    variances: Variances | None = None
    source: str = "assumed, since no study in this root has two cells with two finished seeds each whose answers differ"
    documents: int = 0
    secondary: Mapping[str, Variation] = field(default_factory=dict)

    def of(self, accuracy: float | None, n_items: int) -> Variances | None:
        """Return the measured variances, else the assumed ones of an accuracy; ``None`` without both.

        Args:
            accuracy: Expected accuracy; ``None`` if the metric is not an accuracy.
            n_items: Number of report rows.
        """
        if self.variances is not None or accuracy is None:
            return self.variances
        return assumed_variances(n_items, bounded_accuracy(accuracy), DEFAULT_SEED_SD, DEFAULT_ITEM_CORRELATION)


def bounded_accuracy(accuracy: float) -> float:
    """Return the accuracy for the estimate: at least 0.05 from 0 and from 1.

    >>> bounded_accuracy(1.0), bounded_accuracy(0.6)
    (0.95, 0.6)
    """
    return min(MOST_ACCURATE, max(1 - MOST_ACCURATE, accuracy))


def variations(study: Study, folder: Path, found: Mapping[str, FinishedRuns]) -> dict[str, Variation]:
    """Return for each cell how its scores vary in finished runs: of the study, else of another study in its root.

    The variances are those of differences between a cell and its baseline (without baselines: the first cell) with the
    same seeds on the same items, averaged over all such pairs with the tasks of the cell. Another study counts if it
    also has the same backbone, so its cells may differ. Only metrics that are means over items have
    scores of items. Variances of zero do not show how scores vary, so they do not count.

    Args:
        study: The study.
        folder: Its folder.
        found: Its finished runs.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in study.cells:
        tasks = json.dumps(_rows(study.resolver.content(cell.settings))[:2])
        groups.setdefault((tasks, cell.report_metric), []).append(cell)
    several = len({tasks for tasks, _ in groups}) > 1
    varied: dict[str, Variation] = {}
    for cells in groups.values():
        main, *others = (
            _of_cells(study, folder, found, cells, metric, several)
            for metric in (cells[0].report_metric, *study.secondary)
        )
        own = replace(main, secondary=dict(zip(study.secondary, others, strict=True)))
        varied |= dict.fromkeys((cell.name for cell in cells), own)
    return varied


def _of_cells(
    study: Study,
    folder: Path,
    found: Mapping[str, FinishedRuns],
    cells: Sequence[Cell],
    metric: str,
    several: bool,
) -> Variation:
    """Return how cells with the same tasks vary by a metric; ``several`` names the first of them in the source."""
    if METRICS[metric].item is None:
        return Variation()
    rows = _rows(study.resolver.content(cells[0].settings), metric)
    mine = {cell.name: found[cell.name].final for cell in cells}
    if own := _varying(_squares(mine, study.baselines, metric)):
        where = f" like {cells[0].name}" if several else ""
        source = f"from {sum(map(len, mine.values()))} finished runs of {len(mine)} cells{where}"
        return _variation(own, source, metric)
    for file in sorted(folder.parent.glob(f"*/{STUDY}")):
        try:
            description = read_sealed(file) or {}
            other = _of_study(file.parent, description, rows, metric) if file.parent != folder else ()
        except (UserError, ValueError, KeyError, TypeError, AttributeError):  # damaged: as if it were not there
            continue
        if other:
            return _variation(other, f"from finished runs of the study {description['name']}", metric)
    return Variation()


def _variation(pairs: Pairs, source: str, metric: str) -> Variation:
    documents = min(items for _, _, items in pairs) if METRICS[metric].of_general_text else 0
    return Variation(variances_of(pairs), source, documents)


def _varying(pairs: Pairs) -> Pairs:
    """Return the pairs, or an empty sequence if nothing varies."""
    return pairs if pairs and variances_of(pairs).of_mean(1, 1) > 0 else ()


def _rows(settings: Mapping[str, Any], metric: str = "") -> tuple[Any, ...]:
    """Return what decides how difficult items are: tasks and backbone, and for a metric of general text this text."""
    data = settings.get("data") or {}
    text = settings.get("forgetting") if metric and METRICS[metric].of_general_text else None
    return data.get("task"), data.get("report_tasks"), (settings.get("model") or {}).get("backbone"), text


def _of_study(folder: Path, description: Mapping[str, Any], rows: tuple[Any, ...], metric: str) -> Pairs:
    """Return the pairs of another study by a metric, of its cells with these rows."""
    runs: dict[str, dict[int, Path]] = {
        name: {} for name, cell in description["cells"].items() if _rows(cell["settings"], metric) == rows
    }
    for run in run_folders(folder / "runs"):
        facts = (finished_record(run) or {}).get(STUDY_FACTS, {})
        if facts.get("cell") in runs:
            runs[facts["cell"]][facts["seed"]] = run
    return _varying(_squares(runs, description["baselines"], metric))


def _squares(runs: Runs, baselines: Mapping[str, str], metric: str) -> Pairs:
    """Return the mean squares of each pair of a cell and its baseline with two shared seeds and groups of items."""
    items: dict[Path, dict[tuple[str, int], float]] = {}
    groups: dict[tuple[str, int], tuple[str, int]] = {}
    found = []
    for cell, mine in runs.items():
        other = baselines.get(cell, next(iter(runs)))
        theirs = runs.get(other, {})
        seeds = [seed for seed in mine if seed in theirs]
        if other == cell or len(seeds) < 2:
            continue
        for seed in seeds:
            for folder in (mine[seed], theirs[seed]):
                if folder not in items:
                    scores, known = read_run(folder, [metric], finished_record(folder) or {})
                    items[folder], groups = scores[metric], groups | known
        shared = _common([items[side[seed]] for side in (mine, theirs) for seed in seeds])
        names = [groups.get(item, item) for item in shared]
        if len(set(names)) < 2:
            continue
        table = np.array([[items[mine[s]][i] - items[theirs[s]][i] for i in shared] for s in seeds], dtype=np.float64)
        found.append((_per_item(table, names), *table.shape))
    return found


def _per_item(table: NDArray[np.float64], groups: Sequence[Any]) -> MeanSquares:
    """Return the mean squares over groups of items, scaled so that their number may be counted in items."""
    grouped = by_groups(table, groups)
    return MeanSquares(*(float(square) * table.shape[1] / grouped.shape[1] for square in mean_squares(grouped)))


def _common(scores: Iterable[Mapping[tuple[str, int], float]]) -> list[tuple[str, int]]:
    first, *others = scores
    return [item for item in first if all(item in each for each in others)]
