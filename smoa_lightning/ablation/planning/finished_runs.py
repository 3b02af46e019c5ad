"""The finished runs in a study folder: their times and scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.execution.folders import STAGES, marked, run_folders, seconds_of
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.common.checksums import read_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import RECORD, STUDY, STUDY_FACTS, TRIALS, read_record


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
        record = finished_record(run)
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


def count_final(folder: Path) -> int:
    """Return the number of finished final runs in a study folder, of all cells and seeds."""
    return sum(finished_record(run) is not None for run in run_folders(folder / STAGES["final"]))


def finished_record(run: Path) -> dict[str, Any] | None:
    """Return the record of a finished run; ``None`` if it is unfinished, damaged or missing."""
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
    pruned: set[tuple[str, int]] = set()
    for cell in study.cells:
        trials = searches.get(cell.name, {}).get("trials", [])
        own = {(cell.name, trial["number"]) for trial in trials if trial["state"] == "PRUNED"}
        found[cell.name].search = len(own) * len(study.search.seeds)
        pruned |= own
    for run in sorted((folder / STAGES["search"]).glob(f"*/{RECORD}")):
        record = finished_record(run.parent)
        facts = record.get(STUDY_FACTS, {}) if record is not None else {}
        if record is None or facts.get("cell") not in found or facts.get("signature") != marked(run.parent):
            continue
        if facts.get("seed") not in study.search.seeds:
            continue
        found[facts["cell"]].search += (facts["cell"], facts.get("trial")) not in pruned  # these are counted above
        found[facts["cell"]].search_seconds.append(seconds_of(record))
