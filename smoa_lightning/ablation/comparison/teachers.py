"""Scores against a teacher: only those against the same teacher, at the same positions, can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from smoa_lightning.ablation.comparison.scored_run import ScoredRun
from smoa_lightning.ablation.comparison.sides import Side
from smoa_lightning.records.metric_table import METRICS


def needs_one_teacher(metric: str) -> bool:
    """Whether a metric is a score against a teacher, such as ``kl``."""
    return "teacher" in METRICS[metric].sources


def have_one_teacher(runs: Iterable[ScoredRun]) -> bool:
    """Whether runs have the same teacher, by the digests of its files, and score the same positions."""
    known = [_teacher(run) for run in runs]
    return all(each == known[0] for each in known)


def different_teachers(sides: Sequence[Side]) -> list[str]:
    """Return a sentence if runs are scored against different teachers, else nothing."""
    runs = [run for side in sides for run in side.runs]
    scored = [name for name in METRICS if needs_one_teacher(name) and all(_has(run, name) for run in runs)]
    if not scored or have_one_teacher(runs):
        return []
    names = ", ".join(dict.fromkeys(str((run.record.get("teacher") or {}).get("name")) for run in runs))
    what = f"{', '.join(scored)} {'is' if len(scored) == 1 else 'are'}"
    return [f"{what} not compared: the runs have different teachers or positions (teacher: {names})."]


def _has(run: ScoredRun, metric: str) -> bool:
    return any(run.metric(task, metric) is not None for task in run.tasks)


def _teacher(run: ScoredRun) -> Any:
    """Return the digests of the files of the teacher of a run, and the positions that count."""
    facts = run.record.get("teacher") or {}
    backbone = facts.get("backbone") or {}
    origin = [backbone.get(name) for name in ("source", "commit", "sha256", "files")]
    name = backbone.get("name") if backbone.get("source") == "hub" else None
    settings = (run.record["config"].get("model") or {}).get("distillation") or {}
    return facts.get("adapter"), origin, name, settings.get("positions")
