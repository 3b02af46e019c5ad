"""Reading a study folder: cells, final runs with the scores of their items, trials and failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from smoa_lightning.common.checksums import read_sealed
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.paths import near_place
from smoa_lightning.records.base_seeds import protocols_of, seeds_of_base
from smoa_lightning.records.items import Place, read_run
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.record import RECORD, STUDY, STUDY_FACTS, TRIALS, read_record

FORMAT = 1  # of the description of a study


@dataclass(frozen=True)
class Scored:
    """What a run scores by one metric.

    Args:
        score: Value of the metric.
        items: Items as (task, row); empty if items have no score of this metric.
        values: (m,), the score of each item.
        error: Standard error over items; nan if the metric has none.
    """

    score: float
    items: tuple[Place, ...] = ()
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    error: float = math.nan


@dataclass(frozen=True)
class FinishedRun:
    """One finished final run.

    Args:
        name: Name of its folder.
        cell: Name of its cell.
        seed: Seed of the run.
        record: Record of the run.
        score: Value of the study's metric.
        items: Items as (task, row); empty if items have no score of this metric.
        values: (m,), the score of each item.
        groups: Item -> its group; empty if all items are independent.
        secondary: Secondary metric -> what the run scores by it.
    """

    name: str
    cell: str
    seed: int
    record: Mapping[str, Any]
    score: float
    items: tuple[tuple[str, int], ...] = ()
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    groups: Mapping[Any, Any] = field(default_factory=dict)
    secondary: Mapping[str, Scored] = field(default_factory=dict)

    def by_metric(self, metric: str) -> FinishedRun:
        """Return the run with a secondary metric in the place of the study's."""
        found = self.secondary[metric]
        return replace(self, score=found.score, items=found.items, values=found.values, secondary={})

    @property
    def metrics(self) -> Mapping[str, float]:
        """All measured values."""
        return dict(self.record["metrics"])


@dataclass(frozen=True)
class BaseModelScore:
    """The score of the base model (the backbone before training) on the report rows.

    Args:
        score: Value of the study's metric.
        error: Standard error over items; nan if the metric has none.
        items: Items as (task, row); empty if items have no score of this metric.
        values: (m,), the score of each item.
        by_seed: Seed -> score with the prompts or the new head of this seed, if they follow the seed. Then ``score``
            and ``error`` are means over seeds. Empty if all seeds have the same base model.
        secondary: Secondary metric -> what the base model scores by it.
    """

    score: float
    error: float
    items: tuple[tuple[str, int], ...]
    values: NDArray[np.float64]
    by_seed: Mapping[int, BaseModelScore] = field(default_factory=dict)
    secondary: Mapping[str, Scored] = field(default_factory=dict)

    def of(self, seed: int) -> BaseModelScore | None:
        """Return the score that runs with a seed are compared with; None if it was not measured."""
        return self.by_seed.get(seed) if self.by_seed else self

    def by_metric(self, metric: str) -> BaseModelScore | None:
        """Return the score by a secondary metric; None if it was not measured."""
        if self.by_seed:
            each = {seed: base.by_metric(metric) for seed, base in self.by_seed.items()}
            return mean_over_seeds({seed: base for seed, base in each.items() if base is not None})
        found = self.secondary.get(metric)
        return None if found is None else BaseModelScore(found.score, found.error, found.items, found.values)


def same_rows(description: Mapping[str, Any]) -> Mapping[str, str]:
    """Return cell -> a value that cells with the same report rows share; earlier versions have no key for it."""
    return cast("Mapping[str, str]", description.get("rows") or description["untouched"])


def mean_over_seeds(by_seed: Mapping[int, BaseModelScore]) -> BaseModelScore | None:
    """Return the score of a base model whose prompts or head follow the seed; None without a seed."""
    if not by_seed:
        return None
    score, error = (float(np.mean([getattr(base, name) for base in by_seed.values()])) for name in ("score", "error"))
    return BaseModelScore(score, error, (), np.empty(0), by_seed)


@dataclass(frozen=True)
class StudyFolder:
    """The contents of a study folder.

    Args:
        folder: Path of the folder.
        description: Contents of ``study.json``.
        runs: Cell -> its finished final runs, by seed.
        base_models: Cell -> score of the base model on its rows; only cells with such a score.
        searches: Cell -> its search from ``trials.json``.
        failed: Runs that failed too often.
        damaged: Runs that could not be read, one sentence each.
        other_seeds: Seeds of finished runs that the study had earlier.
    """

    folder: Path
    description: Mapping[str, Any]
    runs: Mapping[str, tuple[FinishedRun, ...]]
    base_models: Mapping[str, BaseModelScore]
    searches: Mapping[str, Any]
    failed: tuple[Mapping[str, Any], ...]
    damaged: tuple[str, ...]
    other_seeds: tuple[int, ...] = ()

    @property
    def finished(self) -> tuple[FinishedRun, ...]:
        """All finished final runs, cell by cell."""
        return tuple(run for runs in self.runs.values() for run in runs)

    def by_metric(self, metric: str) -> StudyFolder:
        """Return the same study with a secondary metric in the place of its objective, and with its margin.

        Runs without this metric are left out.
        """
        described = {**self.description, "margin": self.description.get("secondary_margins", {}).get(metric)}
        described["objective"] = {"metric": metric, "direction": METRICS[metric].direction}
        described["cells"] = {
            name: {**cell, "report_metric": metric} for name, cell in self.description["cells"].items()
        }
        runs = {
            cell: tuple(run.by_metric(metric) for run in each if metric in run.secondary)
            for cell, each in self.runs.items()
        }
        bases = {id(base): base.by_metric(metric) for base in self.base_models.values()}  # cells share one object
        known = {cell: own for cell, base in self.base_models.items() if (own := bases[id(base)]) is not None}
        return replace(self, description=described, runs=runs, base_models=known)


def read_study(folder: Path) -> StudyFolder:
    """Read a study folder.

    A record that cannot be read is reported and left out.

    Raises:
        UserError: The folder does not exist, has no study, or has no finished run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist{near_place(folder) or ': name the folder of a study'}")
    description = read_sealed(folder / STUDY)
    if description is None:
        raise UserError(f"{folder} is not a study folder: it has no {STUDY}")
    if description.get("format") != FORMAT:
        raise UserError(
            f"{folder / STUDY} has the format {description.get('format')!r}, but this version reads the format {FORMAT}"
        )
    if missing := {"cells", "seeds", "untouched"} - description.keys():
        raise UserError(f"{folder / STUDY} is damaged (it has no {min(missing)!r}): restore the file")
    damaged: list[str] = []
    found: dict[str, list[FinishedRun]] = {cell: [] for cell in description["cells"]}
    trials = read_sealed(folder / TRIALS) or {}
    best = {cell: _best_values(search) for cell, search in trials.get("searches", {}).items()}
    for file in sorted((folder / "runs").glob(f"[!.]*/{RECORD}")):  # a folder with a dot is still being copied
        try:
            run = _run(file.parent, description)
        except (UserError, ValueError, KeyError, TypeError) as error:
            damaged.append(f"{file.parent.name} is left out: {one_line(error)}")
            continue
        if run is None:
            continue
        values = run.record[STUDY_FACTS]["parameters"]
        if (best.get(run.cell) or values) != values:
            damaged.append(
                f"{run.name} is left out: it ran with {values}, but its search has since found better values"
            )
        else:
            found[run.cell].append(run)
    every = {cell: tuple(sorted(each, key=lambda run: run.seed)) for cell, each in found.items()}
    seeds = description["seeds"]
    runs = {cell: tuple(run for run in each if run.seed in seeds) for cell, each in every.items()}
    others = sorted({run.seed for each in every.values() for run in each} - {*seeds})
    if not any(runs.values()):
        more = f"; {damaged[0]}" if damaged else ""
        raise UserError(f"no final run of the study in {folder} is finished yet{more}")
    return StudyFolder(
        folder, description, runs, _base_models(folder, description, every, damaged), trials.get("searches", {}),
        tuple(trials.get("failed", ())), tuple(damaged), tuple(others),
    )  # fmt: skip


def _base_models(
    folder: Path, description: Mapping[str, Any], runs: Mapping[str, Sequence[FinishedRun]], damaged: list[str]
) -> dict[str, BaseModelScore]:
    """Read the score of the base model for each cell, from the runs that measured it; add to ``damaged``."""
    found: dict[str, BaseModelScore] = {}
    scored: dict[tuple[str, str], BaseModelScore | None] = {}
    shared = description["untouched"]
    for cell, other in shared.items():
        metric = description["cells"][cell]["report_metric"]
        if (other, metric) not in scored:
            settings = description["cells"].get(other, {}).get("settings", {})
            # a study that got another baseline has the score in runs of the earlier one
            group = sorted((name for name in shared if shared[name] == other), key=lambda name: name != other)
            each = [(run, _base_of(folder, run, metric, damaged)) for name in group for run in runs.get(name, ())]
            known = [(run, base) for run, base in each if base is not None]
            scored[other, metric] = _of_seeds(settings, known, description["seeds"])
        base = scored[other, metric]
        if base is not None:
            found[cell] = base
    return found


def _of_seeds(
    settings: Mapping[str, Any], scores: Sequence[tuple[FinishedRun, BaseModelScore]], seeds: Sequence[int]
) -> BaseModelScore | None:
    """Return the score of the base model from the runs of a cell that measured it; ``None`` without such a run."""
    if not scores:
        return None
    record = scores[0][0].record
    searched = record[STUDY_FACTS]["parameters"]
    own = {key.removeprefix("data."): value for key, value in searched.items() if key.startswith("data.")}
    settings = {**settings, "data": {**(settings.get("data") or {}), **own}}
    if None not in seeds_of_base(settings, protocols_of(record)):
        return scores[0][1]
    by_seed: dict[int, BaseModelScore] = {}
    for run, base in scores:
        if run.seed in seeds:
            by_seed.setdefault(run.seed, base)
    return mean_over_seeds(by_seed)


def _base_of(folder: Path, run: FinishedRun, metric: str, damaged: list[str]) -> BaseModelScore | None:
    if run.metrics.get(f"base/{metric}") is None:
        return None
    try:
        scores, _ = read_run(
            folder / "runs" / run.name, list(dict.fromkeys([metric, *run.secondary])), run.record, base=True
        )
    except UserError as fault:
        damaged.append(f"the score of the base model in {run.name} is left out: {fault}")
        return None
    found = _scored(run.record, "base", scores)
    main = found.get(metric) if metric in run.secondary else found.pop(metric, None)
    if main is None:
        damaged.append(f"the score of the base model in {run.name} is left out: {metric} is not a finite number")
        return None
    return BaseModelScore(main.score, main.error, main.items, main.values, secondary=found)


def _best_values(search: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the values that the final runs of a cell must have."""
    return next((trial["parameters"] for trial in search["trials"] if trial["number"] == search["best"]), None)


def _run(folder: Path, description: Mapping[str, Any]) -> FinishedRun | None:
    """Read one run; ``None`` if it is not finished, or if the study no longer has its cell."""
    record = read_record(folder)
    if record is None or record["status"] != "finished":
        return None
    place = record[STUDY_FACTS]
    cell = description["cells"].get(place["cell"])
    if cell is None or place["stage"] != "final":
        return None
    metric, names = cell["report_metric"], description.get("secondary", [])
    scores, groups = read_run(folder, list(dict.fromkeys([metric, *names])), record)
    found = _scored(record, "report", scores)
    if metric not in found:
        value = record["metrics"].get(f"report/{metric}")
        raise UserError(f"it has no report/{metric}" if value is None else f"its report/{metric} is {value}")
    main = found[metric] if metric in names else found.pop(metric)
    return FinishedRun(
        folder.name, place["cell"], place["seed"], record, main.score, main.items, main.values, groups, found
    )


def _scored(record: Mapping[str, Any], part: str, scores: Mapping[str, Mapping[Place, float]]) -> dict[str, Scored]:
    """Return what a run scores by each metric, without scores that are not finite.

    A metric that an old record lacks is the mean over its items.
    """
    found = {}
    for metric, own in scores.items():
        values = np.array(list(own.values()))
        score = record["metrics"].get(f"{part}/{metric}", values.mean() if own else None)
        error = float(record["metrics"].get(f"{part}/{metric}_stderr", math.nan))
        if score is not None and math.isfinite(score):
            found[metric] = Scored(float(score), tuple(own), values, error)
    return found
