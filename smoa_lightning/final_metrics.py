"""What TensorBoard's HPARAMS tab has for every run, under the same names for every strategy. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SCORES = ("acc", "acc_norm", "acc_token", "nll", "perplexity")
COSTS = ("rank/effective_mean", "parameters/trainable", "cost/tokens_per_second", "cost/peak_memory_mb")
# Name in the tab -> name in a record.
FINAL_METRICS = {
    **{f"final/{name}": f"report/{name}" for name in SCORES},
    **{f"final/base_{name}": f"base/{name}" for name in SCORES},
    **{f"final/selection_{name}": f"selection/{name}" for name in SCORES},
    **{f"final/{name.split('/')[1]}": name for name in COSTS},
}


def final_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of the tab from those of a record; -1 where one was not measured.

    >>> final_metrics({"report/acc": 0.5})["final/acc"], final_metrics({})["final/acc"]
    (0.5, -1.0)
    """
    return {name: float(metrics.get(source, -1.0)) for name, source in FINAL_METRICS.items()}


def mean_metrics(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each metric of the tab over the runs that have it; -1 where none has.

    >>> mean_metrics([{"report/acc": 0.5, "base/acc": 0.3}, {"report/acc": 0.6}])["final/base_acc"]
    0.3
    """
    found = {}
    for name, source in FINAL_METRICS.items():
        values = [float(metrics[source]) for metrics in runs if source in metrics]
        found[name] = statistics.fmean(values) if values else -1.0
    return found
