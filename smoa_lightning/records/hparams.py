"""The columns of TensorBoard's HPARAMS tab, with the same names for every strategy. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from smoa_lightning.records.metric_table import METRICS, measured
from smoa_lightning.records.tensorboard_tags import is_curve

SCORES = tuple(name for name, metric in METRICS.items() if metric.in_hparams)
COSTS = ("rank/effective_mean", "parameters/trainable", "cost/tokens_per_second", "cost/peak_memory_mb")
# Name in the tab -> name in a record.
FINAL_METRICS = {
    **{f"final/{name}": f"report/{name}" for name in SCORES},
    **{f"final/base_{name}": f"base/{name}" for name in SCORES},
    **{f"final/selection_{name}": f"selection/{name}" for name in SCORES},
    **{f"final/{name.split('/')[1]}": name for name in COSTS},
}
# Curves of a run whose last values are the metrics of the tab.
CURVES = ("train/loss", *(f"selection/{name}" for name in SCORES), *filter(is_curve, COSTS))
FIRST = ("learning_rate", "rank", "strategy", "task")  # columns that are shown before the others, after the axes


def final_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of the tab from those of a record; -1 for a metric that was not measured.

    >>> final_metrics({"report/acc": 0.5})["final/acc"], final_metrics({})["final/acc"]
    (0.5, -1.0)
    """
    return {name: float(metrics.get(source, -1.0)) for name, source in FINAL_METRICS.items()}


def column_key(name: str) -> str:
    """Return the key by which TensorBoard sorts a column: final metrics come after the learning rate.

    >>> sorted(["final/acc", "learning_rate", "axis/r"], key=column_key)
    ['axis/r', 'learning_rate', 'final/acc']
    """
    return name.replace("final/", "result/", 1) if name.startswith("final/") else name


def first_columns(columns: Mapping[str, Any]) -> set[str]:
    """Return the columns that come first: axes, learning rate, rank, strategy, task, and the first measured score.

    >>> sorted(first_columns({"axis/r": "8", "learning_rate": 0.1, "seed": 0, "final/acc": -1.0, "final/nll": 1.2}))
    ['axis/r', 'final/nll', 'learning_rate']
    """
    scores = [name for name in (f"final/{score}" for score in SCORES) if columns.get(name, -1.0) != -1.0]
    return {name for name in columns if name.startswith("axis/") or name in (*FIRST, *scores[:1])}


def mean_metrics(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each metric of the tab over the runs that measured it; -1 if no run did.

    >>> mean_metrics([{"report/acc": 0.5, "base/acc": 0.3}, {"report/acc": 0.6}])["final/base_acc"]
    0.3
    """
    means = {}
    for name, source in FINAL_METRICS.items():
        found = [measured(source, metrics.get(source)) for metrics in runs]
        values = [float(value) for value in found if value is not None]
        means[name] = statistics.fmean(values) if values else -1.0
    return means


def study_columns(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns about a run's place in a study, from the study facts of its record.

    >>> study_columns({"cell": "r=8", "stage": "final", "trial": None, "axes": {"r": "8"}})
    {'ablation/cell': 'r=8', 'ablation/stage': 'final', 'ablation/trial': 'None', 'ablation/seeds': 1, 'axis/r': '8'}
    """
    place = {f"ablation/{name}": str(facts.get(name)) for name in ("cell", "stage", "trial")}
    return place | {"ablation/seeds": 1} | {f"axis/{axis}": label for axis, label in facts.get("axes", {}).items()}


def mean_hyperparameters(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns for the mean of some runs: the shared value of all runs, else -1 or an empty text.

    The columns are those of the runs, since TensorBoard takes them from any one entry below a folder.

    >>> mean_hyperparameters([{"rank": 8, "seed": 0, "task": "piqa"}, {"rank": 8, "seed": 1, "task": "piqa"}])
    {'rank': 8, 'seed': -1, 'task': 'piqa'}
    """
    columns = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run.get(name) for run in runs]
        unequal = "" if any(isinstance(value, str) for value in values) else -1
        columns[name] = values[0] if all(value == values[0] for value in values) else unequal
    return columns
