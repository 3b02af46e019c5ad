"""The finished runs in a study folder: their times, and how their accuracies vary."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smoa_lightning.ablation.execution.folders import STAGES, marked, run_folders, seconds_of
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.common.checksums import read_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.items import read_right
from smoa_lightning.records.metric_table import ACCURACIES
from smoa_lightning.records.record import FILES, ITEMS, RECORD, STUDY, STUDY_FACTS, TRIALS, read_record

# Assumed values before runs are finished. One point over seeds is usual for a few thousand training rows, and adapters
# of one backbone agree on most items. The plan says that both values are assumed.
DEFAULT_SEED_SD, DEFAULT_ITEM_CORRELATION = 0.01, 0.5


@dataclass(frozen=True)
class Variation:
    """How accuracies vary; the smallest detectable difference is computed from it.

    Attributes:
        seed_sd: Standard deviation of a cell's accuracy over seeds.
        item_correlation: Correlation of right and wrong answers between two cells' runs, over the items.
        source: Source of the two values.
    """

    seed_sd: float = DEFAULT_SEED_SD
    item_correlation: float = DEFAULT_ITEM_CORRELATION
    source: str = "assumed, since this folder does not yet have two cells with two finished seeds each"


@dataclass
class FinishedRuns:
    """The finished runs of a cell.

    Attributes:
        final: Seed -> folder of the final run.
        seconds: Seconds of each final run.
        scores: Seed -> value of the metric.
        search: Number of finished or pruned search runs.
        search_seconds: Seconds of each finished search run.
    """

    final: dict[int, Path] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    search: int = 0
    search_seconds: list[float] = field(default_factory=list)


def read_finished(study: Study, folder: Path) -> dict[str, FinishedRuns]:
    """Return the finished runs of each cell, from the study folder and from the other studies in the same root.

    A final run counts if its signature is that of the study. So a run with different settings, or with the best values
    of an earlier search, does not count. A damaged record is ignored, as by the workers, but is left unchanged.
    """
    found = {cell.name: FinishedRuns() for cell in study.cells}
    _read_search(study, folder, found)
    known = {study.final_run(c, seed).signature: (c, seed) for c in study.cells if not c.parameters
             for seed in study.seeds}  # fmt: skip
    for run in _folders(folder, "final"):
        record = _finished_record(run)
        place = known.get(marked(run)) if record is not None else None
        if place is None and record is not None and run.parent.parent == folder:
            place = _of_search(study, record, marked(run), found)
        if record is None or place is None or place[1] in found[place[0].name].final:
            continue
        cell, seed = place
        mine = found[cell.name]
        mine.final[seed] = run
        mine.seconds.append(seconds_of(record))
        score = record["metrics"].get(f"report/{cell.report_metric}")
        if score is not None and math.isfinite(score):
            mine.scores[seed] = float(score)
    return found


def _folders(folder: Path, stage: str) -> Iterator[Path]:
    """Yield the run folders of a study, then those of the other studies in the same root."""
    others = [f.parent for f in sorted(folder.parent.glob(f"*/{STUDY}")) if f.parent != folder]
    for study in (folder, *others):
        yield from run_folders(study / STAGES[stage])


def _finished_record(run: Path) -> dict[str, Any] | None:
    try:
        record = read_record(run)
    except UserError:
        return None
    return record if record is not None and record["status"] == "finished" else None


def _of_search(
    study: Study, record: Mapping[str, Any], signature: str, found: Mapping[str, FinishedRuns]
) -> tuple[Cell, int] | None:
    """Return cell and seed of a final run after a search, if the search has ended and the run is of this study."""
    facts = record.get(STUDY_FACTS, {})
    cell = next((c for c in study.cells if c.name == facts.get("cell") and c.parameters), None)
    if cell is None or study.search is None or facts.get("seed") not in study.seeds:
        return None
    if found[cell.name].search < study.search.trials * len(study.search.seeds):
        return None
    try:
        run = study.final_run(cell, facts["seed"], facts["parameters"])
    except UserError:  # the run's search had different settings
        return None
    return (cell, run.seed) if run.signature == signature else None


def _read_search(study: Study, folder: Path, found: Mapping[str, FinishedRuns]) -> None:
    if study.search is None:
        return
    searches = (read_sealed(folder / TRIALS) or {}).get("searches", {})
    for cell in study.cells:
        trials = searches.get(cell.name, {}).get("trials", [])
        pruned = sum(trial["state"] == "PRUNED" for trial in trials)
        found[cell.name].search = pruned * len(study.search.seeds)
    for run in sorted((folder / STAGES["search"]).glob(f"*/{RECORD}")):
        record = _finished_record(run.parent)
        facts = record.get(STUDY_FACTS, {}) if record is not None else {}
        if record is None or facts.get("cell") not in found or facts.get("signature") != marked(run.parent):
            continue
        found[facts["cell"]].search += 1
        found[facts["cell"]].search_seconds.append(seconds_of(record))


# ------------------------------------------------------------------------------------------------------ how they vary


def variation(study: Study, found: Mapping[str, FinishedRuns]) -> Variation:
    """Return how accuracies vary in the finished runs; assumed values with fewer than two cells with two seeds.

    The standard deviation over seeds is pooled over cells. The correlation over items is the mean over pairs of a cell
    and its baseline (without baselines: the first cell) with the same seed.
    """
    cells = [c for c in study.cells if c.report_metric in ACCURACIES and len(found[c.name].scores) >= 2]
    if len(cells) < 2:
        return Variation()
    spread = statistics.fmean(statistics.variance(found[cell.name].scores.values()) for cell in cells)
    seeds = sum(len(found[cell.name].scores) for cell in cells)
    pairs = _item_correlations(study, cells, found)
    source = f"from {seeds} finished runs of {len(cells)} cells"
    if not pairs:
        return Variation(math.sqrt(spread), DEFAULT_ITEM_CORRELATION, f"{source}; the correlation is assumed")
    return Variation(math.sqrt(spread), statistics.fmean(pairs), source)


def _checksum(folder: Path) -> str | None:
    """Return the checksum of a run's items; ``None`` for a run of an earlier version."""
    checksum: str | None = (_finished_record(folder) or {}).get(FILES, {}).get(ITEMS)
    return checksum


def _item_correlations(study: Study, cells: list[Cell], found: Mapping[str, FinishedRuns]) -> list[float]:
    right = {
        (cell.name, seed): read_right(folder / ITEMS, cell.report_metric, _checksum(folder))
        for cell in cells
        for seed, folder in found[cell.name].final.items()
    }
    values = []
    for cell in cells:
        other = study.baselines.get(cell.name, cells[0].name)
        for seed in found[cell.name].final:
            mine, theirs = right[cell.name, seed], right.get((other, seed), {})
            shared = sorted(mine.keys() & theirs.keys())
            if other == cell.name or len(shared) < 2:
                continue
            both = np.array([[mine[item], theirs[item]] for item in shared], dtype=float)
            if both.std(axis=0).all():  # a run with all items right, or all wrong, has no correlation
                values.append(float(np.corrcoef(both.T)[0, 1]))
    return values
