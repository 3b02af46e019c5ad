"""Reading a study folder: its cells, the final runs of each with the scores of their items, its trials and failures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoa_lightning.common.errors import UserError
from smoa_lightning.records.items import read_right
from smoa_lightning.records.record import BASE_ITEMS, ITEMS, RECORD, STUDY, STUDY_FACTS, TRIALS, read_record

FORMAT = 1  # of the description of a study


@dataclass(frozen=True)
class FinishedRun:
    """One final run.

    Args:
        name: Its folder.
        cell: Its cell.
        seed: Its seed.
        record: Its record.
        score: The study's metric.
        items: Names of its items, task and row; empty where items have no score of this metric.
        values: (m,), the score of each item.
    """

    name: str
    cell: str
    seed: int
    record: Mapping[str, Any]
    score: float
    items: tuple[tuple[str, int], ...] = ()
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def metrics(self) -> Mapping[str, float]:
        """Everything that was measured."""
        return dict(self.record["metrics"])


@dataclass(frozen=True)
class Untouched:
    """The untouched backbone on the report rows.

    Args:
        score: Its score.
        error: Its standard error over items; nan where the metric has none.
        items: Names of the items, empty where they have no score of this metric.
        values: (m,), the score of each item.
    """

    score: float
    error: float
    items: tuple[tuple[str, int], ...]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class StudyFolder:
    """A study as it lies on disk.

    Args:
        folder: Its folder.
        description: ``study.json``.
        runs: Cell -> its finished final runs, by seed.
        untouched: Cell -> the untouched backbone on its rows, where that was scored.
        searches: Cell -> its search, as ``trials.json`` has it.
        failed: Runs that failed too often.
        damaged: What could not be read, one sentence each.
    """

    folder: Path
    description: Mapping[str, Any]
    runs: Mapping[str, tuple[FinishedRun, ...]]
    untouched: Mapping[str, Untouched]
    searches: Mapping[str, Any]
    failed: tuple[Mapping[str, Any], ...]
    damaged: tuple[str, ...]

    @property
    def finished(self) -> tuple[FinishedRun, ...]:
        """All finished final runs, cell by cell."""
        return tuple(run for runs in self.runs.values() for run in runs)


def read_study(folder: Path) -> StudyFolder:
    """Read a study folder.

    A record that cannot be read is told and left out.

    Raises:
        UserError: No such folder, no study in it, or no finished run.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    description = _json(folder / STUDY)
    if description is None:
        raise UserError(f"{folder} holds no study: it has no {STUDY}")
    if description.get("format") != FORMAT:
        raise UserError(f"{folder / STUDY} has the format {description.get('format')!r}, this version {FORMAT}")
    damaged: list[str] = []
    found: dict[str, list[FinishedRun]] = {cell: [] for cell in description["cells"]}
    trials = _json(folder / TRIALS) or {}
    best = {cell: _best_values(search) for cell, search in trials.get("searches", {}).items()}
    for file in sorted((folder / "runs").glob(f"[!.]*/{RECORD}")):  # those with a dot are still being copied
        try:
            run = _run(file.parent, description)
        except (UserError, ValueError, KeyError, TypeError) as error:
            damaged.append(f"{file.parent.name} is left out: {' '.join(str(error).split()) or type(error).__name__}")
            continue
        if run is None:
            continue
        values = run.record[STUDY_FACTS]["parameters"]
        if (best.get(run.cell) or values) != values:
            damaged.append(f"{run.name} is left out: it ran with {values}, but by now its search found others better")
        else:
            found[run.cell].append(run)
    runs = {cell: tuple(sorted(each, key=lambda run: run.seed)) for cell, each in found.items()}
    if not any(runs.values()):
        more = f"; {damaged[0]}" if damaged else ""
        raise UserError(f"no final run of the study in {folder} is finished yet{more}")
    return StudyFolder(
        folder, description, runs, _untouched(folder, description, runs), trials.get("searches", {}),
        tuple(trials.get("failed", ())), tuple(damaged),
    )  # fmt: skip


def _untouched(
    folder: Path, description: Mapping[str, Any], runs: Mapping[str, Sequence[FinishedRun]]
) -> dict[str, Untouched]:
    """Read the score of the untouched backbone for each cell, from the run that it was scored with."""
    found: dict[str, Untouched] = {}
    scored: dict[tuple[str, str], Untouched | None] = {}
    for cell, other in description["untouched"].items():
        metric = description["cells"][cell]["report_metric"]
        if (other, metric) not in scored:
            scored[other, metric] = next(
                (base for run in runs.get(other, ()) if (base := _base_of(folder, run, metric)) is not None), None
            )
        base = scored[other, metric]
        if base is not None:
            found[cell] = base
    return found


def _base_of(folder: Path, run: FinishedRun, metric: str) -> Untouched | None:
    score = run.metrics.get(f"base/{metric}")
    if score is None:
        return None
    right = read_right(folder / "runs" / run.name / BASE_ITEMS, metric)
    error = float(run.metrics.get(f"base/{metric}_stderr", math.nan))
    return Untouched(float(score), error, tuple(right), np.array(list(right.values())))


def _best_values(search: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The values that the final runs of a cell are to have."""
    return next((trial["parameters"] for trial in search["trials"] if trial["number"] == search["best"]), None)


def _json(file: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}): restore the file") from error


def _run(folder: Path, description: Mapping[str, Any]) -> FinishedRun | None:
    """Read one run; ``None`` if it is not finished, or of a cell or seed that the study has no more."""
    record = read_record(folder)
    if record is None or record["status"] != "finished":
        return None
    place = record[STUDY_FACTS]
    cell = description["cells"].get(place["cell"])
    if cell is None or place["seed"] not in description["seeds"] or place["stage"] != "final":
        return None
    metric = cell["report_metric"]
    score = float(record["metrics"][f"report/{metric}"])
    right = read_right(folder / ITEMS, metric)
    items, values = tuple(right), np.array(list(right.values()))
    return FinishedRun(folder.name, place["cell"], place["seed"], record, score, items, values)
