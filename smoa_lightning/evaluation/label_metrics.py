"""Metrics of predicted classes and numbers with their standard errors: functions of arrays.

The values are those of torchmetrics. Accuracy, ``nll`` and ``mse`` are means over items, with the standard error of a
mean. For the others there is no simple formula: the standard error is that of a bootstrap over the items (1,000
resamples, a fixed seed), so that it is the same in every process and run.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np
import torch

RESAMPLES = 1000
Metrics = dict[str, float]


def class_metrics(log_probabilities: np.ndarray, labels: np.ndarray) -> Metrics:
    """Return ``acc``, ``mcc`` (Matthews), ``nll`` in nats, and with two classes ``f1`` of the second one.

    ``mcc`` and ``f1`` are 0 where they are 0 / 0, as in scikit-learn.

    Args:
        log_probabilities: (items, classes).
        labels: (items,) class numbers.
    """
    from torchmetrics.functional.classification import binary_f1_score, multiclass_matthews_corrcoef

    count, classes = log_probabilities.shape
    best = log_probabilities.argmax(axis=1)
    found, gold = torch.from_numpy(best), torch.from_numpy(labels).long()
    one_class = len(np.unique(best)) == 1 or len(np.unique(labels)) == 1  # torchmetrics does not return 0 then
    tables = _resampled_tables(best, labels, classes)
    values = {
        **_mean("acc", (best == labels).astype(float)),
        **_mean("nll", -log_probabilities[np.arange(count), labels]),
        "mcc": 0.0 if one_class else float(multiclass_matthews_corrcoef(found, gold, num_classes=classes)),
        "mcc_stderr": float(np.std(_mcc(tables), ddof=1)),
    }
    if classes == 2:
        values |= {"f1": float(binary_f1_score(found, gold)), "f1_stderr": float(np.std(_f1(tables), ddof=1))}
    return values


def number_metrics(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Return ``pearson``, ``spearman`` and ``mse``.

    A correlation with numbers that are all equal is 0 / 0; it counts as 0.

    Args:
        predictions: (items,).
        labels: (items,).
    """
    from scipy.stats import rankdata
    from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

    values = _mean("mse", (predictions - labels) ** 2)
    found, gold = torch.from_numpy(predictions).double(), torch.from_numpy(labels).double()
    constant = bool(np.ptp(predictions) == 0 or np.ptp(labels) == 0)
    ranked = functools.partial(rankdata, axis=-1)
    kinds: dict[str, tuple[Callable[..., torch.Tensor], Callable[[np.ndarray], np.ndarray]]] = {
        "pearson": (pearson_corrcoef, lambda x: x),
        "spearman": (spearman_corrcoef, ranked),
    }
    for name, (metric, change) in kinds.items():
        values[name] = 0.0 if constant else float(metric(found, gold))
        values[f"{name}_stderr"] = 0.0 if constant else _correlation_stderr(predictions, labels, change)
    return values


def _mean(name: str, items: np.ndarray) -> Metrics:
    error = float(np.std(items, ddof=1)) / len(items) ** 0.5 if len(items) > 1 else 0.0
    return {name: float(items.mean()), f"{name}_stderr": error}


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, and 0 where it is 0 / 0."""
    ratio: np.ndarray = np.divide(above, below, out=np.zeros_like(below), where=below > 0)
    return ratio


def _resampled_tables(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return confusion tables of resampled items, (resamples, predicted, label).

    To draw items with replacement is to draw the counts of the cells of their table, since an item is no more than its
    cell.
    """
    cells = np.bincount(predicted * classes + labels, minlength=classes**2)
    drawn = np.random.default_rng(0).multinomial(len(labels), cells / len(labels), size=RESAMPLES)
    return drawn.reshape(RESAMPLES, classes, classes).astype(float)


def _mcc(tables: np.ndarray) -> np.ndarray:
    """Return Matthews' correlation of confusion tables, (tables,), by Gorodkin 2004; 0 where it is 0 / 0."""
    total = tables.sum(axis=(1, 2))
    right = np.trace(tables, axis1=1, axis2=2)
    predicted, gold = tables.sum(axis=2), tables.sum(axis=1)
    covariance = right * total - (predicted * gold).sum(axis=1)
    scale = np.sqrt((total**2 - (predicted**2).sum(axis=1)) * (total**2 - (gold**2).sum(axis=1)))
    return _ratio(covariance, scale)


def _f1(tables: np.ndarray) -> np.ndarray:
    """Return the F1 of class 1 of tables of two classes, (tables,): 2 TP / (2 TP + FP + FN); 0 where it is 0 / 0."""
    both = 2 * tables[:, 1, 1]
    total = both + tables[:, 1, 0] + tables[:, 0, 1]
    return _ratio(both, total)


def _correlation_stderr(one: np.ndarray, two: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the standard error of Pearson's correlation of two changed columns, by scipy's bootstrap over items."""
    from scipy.stats import bootstrap

    def correlation(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        a, b = (x - x.mean(axis=axis, keepdims=True) for x in (change(a), change(b)))
        scale = np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
        return _ratio((a * b).sum(axis=axis), scale)

    settings = {"paired": True, "vectorized": True, "n_resamples": RESAMPLES, "method": "percentile", "batch": 100}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two items, some resamples are constant
        result = bootstrap((one, two), correlation, rng=np.random.default_rng(0), **settings)
    return float(result.standard_error)
