"""What a cell of a study scores and costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smoa_lightning.ablation.report.folder import FinishedRun, StudyFolder
from smoa_lightning.ablation.statistics import Estimate, interquartile_mean, mean_interval
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.record import STUDY_FACTS

IQM_SEEDS = 5  # fewer leave nothing in the middle half to speak of


@dataclass(frozen=True)
class CellResult:
    """What a cell scores and costs.

    Args:
        name: Its name.
        labels: Axis -> label.
        settings: Full key -> value of its settings, nested.
        metric: What it is scored by.
        planned: Seeds of the study.
        runs: Its finished runs.
        estimate: Mean over seeds with its interval; ``None`` without a run.
        iqm: Interquartile mean with its interval, of enough seeds.
        costs: Name -> median over its runs, of what was measured.
    """

    name: str
    labels: Mapping[str, str]
    settings: Mapping[str, Any]
    metric: str
    planned: int
    runs: tuple[FinishedRun, ...]
    estimate: Estimate | None
    iqm: Estimate | None
    costs: Mapping[str, float]

    @property
    def scores(self) -> list[float]:
        """The score of each seed."""
        return [run.score for run in self.runs]

    def setting(self, key: str) -> Any:
        """Return a setting by its full key, as the runs had it; ``None`` where there is none, or runs differ.

        A budget or a search may have decided it instead of the study's files.
        """
        value: Any = self.settings
        for word in key.split("."):
            value = value.get(word) if isinstance(value, Mapping) else None
        found = [_trained_with(run.record, key, value) for run in self.runs] or [value]
        return found[0] if all(each == found[0] for each in found) else None


def _trained_with(record: Mapping[str, Any], key: str, value: Any) -> Any:
    start, _, last = key.rpartition(".")
    by_budget = (record.get("budget") or {}).get("changes", {}) if start == "model.adapter.init_args" else {}
    return record[STUDY_FACTS]["parameters"].get(key, by_budget.get(last, value))


# Name of a cost -> where a record has it.
COSTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "parameters": lambda record: record["metrics"].get("parameters/trainable"),
    "bytes": lambda record: record["metrics"].get("parameters/adapter_bytes"),
    "rank": lambda record: _positive(record["metrics"].get("rank/effective_mean")),
    "step": lambda record: _positive(record["metrics"].get("cost/step_seconds")),
    "tokens_per_second": lambda record: _positive(record["metrics"].get("cost/tokens_per_second")),
    "memory": lambda record: _positive(record["metrics"].get("cost/peak_memory_mb")),
    "seconds": lambda record: record[STUDY_FACTS].get("seconds"),
}


def cell_result(name: str, facts: Mapping[str, Any], study: StudyFolder) -> CellResult:
    """Return what a cell scores and costs; its facts are those of ``study.json``."""
    runs = study.runs[name]
    scores = [run.score for run in runs]
    costs = {}
    for cost, read in COSTS.items():
        values = [float(value) for run in runs if (value := read(run.record)) is not None]
        if values:
            costs[cost] = statistics.median(values)
    return CellResult(
        name=name,
        labels=facts["labels"],
        settings=facts["settings"],
        metric=facts["report_metric"],
        planned=len(study.description["seeds"]),
        runs=runs,
        estimate=mean_interval(scores) if scores else None,
        iqm=interquartile_mean([scores]) if len(scores) >= IQM_SEEDS else None,
        costs=costs,
    )


def _positive(value: Any) -> float | None:
    return float(value) if value is not None and value > 0 else None


def unit(metric: str) -> tuple[float, str]:
    """Return factor and unit of differences: points for shares, none for other metrics.

    >>> unit("acc"), unit("nll")
    ((100.0, 'points'), (1.0, ''))
    """
    return (100.0, "points") if metric in METRICS and METRICS[metric].unit == "share" else (1.0, "")
