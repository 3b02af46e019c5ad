"""Score and cost of a cell of a study."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smoa_lightning.ablation.report.folder import FinishedRun, StudyFolder
from smoa_lightning.ablation.statistics import Estimate, interquartile_mean, mean_interval
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.record import STUDY_FACTS

IQM_SEEDS = 5  # with fewer seeds the middle half has too few scores


@dataclass(frozen=True)
class CellResult:
    """Score and cost of a cell.

    Args:
        name: Name of the cell.
        labels: Axis -> label.
        settings: Nested settings of the cell.
        metric: Metric of the scores.
        planned: Number of seeds of the study.
        runs: Finished runs of the cell.
        estimate: Mean over seeds with its interval; ``None`` without a run.
        iqm: Interquartile mean with its interval; ``None`` with too few seeds.
        costs: Name of a cost -> median over the runs that measured it.
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
        """Return a setting of the runs by its full key; ``None`` if the setting is missing or the runs differ.

        A budget or a search may have set the value instead of the study's files.
        """
        value: Any = self.settings
        for word in key.split("."):
            value = value.get(word) if isinstance(value, Mapping) else None
        values = [_trained_with(run.record, key, value) for run in self.runs] or [value]
        return values[0] if all(each == values[0] for each in values) else None


def _trained_with(record: Mapping[str, Any], key: str, value: Any) -> Any:
    start, _, last = key.rpartition(".")
    by_budget = (record.get("budget") or {}).get("changes", {}) if start == "model.adapter.init_args" else {}
    return record[STUDY_FACTS]["parameters"].get(key, by_budget.get(last, value))


# Name of a cost -> how to read it from a record.
COSTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "parameters": lambda record: record["metrics"].get("parameters/trainable"),
    "bytes": lambda record: record["metrics"].get("parameters/adapter_bytes"),
    "rank": lambda record: _positive(record["metrics"].get("rank/effective_mean")),
    "step": lambda record: _positive(record["metrics"].get("cost/step_seconds")),
    "tokens_per_second": lambda record: _positive(record["metrics"].get("cost/tokens_per_second")),
    "images_per_second": lambda record: _positive(record["metrics"].get("cost/images_per_second")),
    "memory": lambda record: _positive(record["metrics"].get("cost/peak_memory_mb")),
    "seconds": lambda record: record[STUDY_FACTS].get("seconds"),
}


def cell_result(name: str, facts: Mapping[str, Any], study: StudyFolder) -> CellResult:
    """Return score and cost of a cell; ``facts`` is its entry in ``study.json``."""
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
    """Return factor and unit of differences: points for shares, no unit for other metrics.

    >>> unit("acc"), unit("nll")
    ((100.0, 'points'), (1.0, ''))
    """
    return (100.0, "points") if metric in METRICS and METRICS[metric].unit == "share" else (1.0, "")


def decimals(metric: str) -> int:
    """Return the decimals of a difference in the unit of reports: four for correlations, losses and other small scores.

    >>> decimals("acc"), decimals("nll"), decimals("mcc"), decimals("perplexity")
    (2, 4, 4, 2)
    """
    fine = metric in METRICS and METRICS[metric].unit in ("", "cosine", "nats per token")
    return 4 if fine and not metric.endswith("perplexity") else 2
