"""Metrics of predicted classes and numbers with their standard errors: functions of arrays.

The values are those of torchmetrics. ``acc``, ``expected_acc``, ``nll`` and ``mse`` are means over items, with the
standard error of a mean. For the others there is no simple formula: the standard error is that of a bootstrap over the
items (1,000 resamples, a fixed seed), so that it is the same in every process and run. If items share groups, groups
are resampled. One item or group has no standard error, nor has a value that is 0 / 0, such as ``mcc`` of one predicted
class.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from smoa_lightning.evaluation.standard_errors import Groups, known_errors, with_stderr

RESAMPLES = 1000
Metrics = dict[str, float]


def class_metrics(log_probabilities: np.ndarray, labels: np.ndarray, groups: Groups | None = None) -> Metrics:
    """Return ``acc``, ``expected_acc``, ``mcc`` (Matthews), ``nll`` in nats, and of two classes ``f1`` of the second.

    ``expected_acc`` is the mean probability of the right class.

    ``mcc`` and ``f1`` are 0 where they are 0 / 0, as in scikit-learn.

    Args:
        log_probabilities: (items, classes).
        labels: (items,) class numbers.
        groups: The group of each item; None if all are independent.
    """
    from torchmetrics.functional.classification import binary_f1_score, multiclass_matthews_corrcoef

    count, classes = log_probabilities.shape
    best = log_probabilities.argmax(axis=1)
    found, gold = torch.from_numpy(best), torch.from_numpy(labels).long()
    one_class = len(np.unique(best)) == 1 or len(np.unique(labels)) == 1  # torchmetrics does not return 0 then
    resampled = _resampled(best, labels, classes, groups)
    units = count if groups is None else len(set(groups))

    def spread(scores: np.ndarray, known: bool) -> float:
        return float(np.std(scores, ddof=1)) if units > 1 and known else math.nan

    gold_scores = log_probabilities[np.arange(count), labels]
    values = {
        **with_stderr("acc", (best == labels).astype(float), groups),
        **with_stderr("expected_acc", np.exp(gold_scores), groups),
        **with_stderr("nll", -gold_scores, groups),
        "mcc": 0.0 if one_class else float(multiclass_matthews_corrcoef(found, gold, num_classes=classes)),
        "mcc_stderr": spread(resampled.mcc(), not one_class),
    }
    if classes == 2:
        any_ones = bool(best.any() or labels.any())
        values |= {"f1": float(binary_f1_score(found, gold)), "f1_stderr": spread(resampled.f1(), any_ones)}
    return known_errors(values)


def number_metrics(predictions: np.ndarray, labels: np.ndarray, groups: Groups | None = None) -> Metrics:
    """Return ``pearson``, ``spearman`` and ``mse``.

    A correlation with numbers that are all equal is 0 / 0; it counts as 0.

    Args:
        predictions: (items,).
        labels: (items,).
        groups: The group of each item; None if all are independent.
    """
    from scipy.stats import rankdata
    from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

    values = with_stderr("mse", (predictions - labels) ** 2, groups)
    found, gold = torch.from_numpy(predictions).double(), torch.from_numpy(labels).double()
    constant = bool(np.ptp(predictions) == 0 or np.ptp(labels) == 0)
    kinds: dict[str, tuple[Callable[..., torch.Tensor], Callable[[np.ndarray], np.ndarray]]] = {
        "pearson": (pearson_corrcoef, lambda x: x),
        "spearman": (spearman_corrcoef, rankdata),
    }
    for name, (metric, change) in kinds.items():
        values[name] = 0.0 if constant else float(metric(found, gold))
        values[f"{name}_stderr"] = _correlation_stderr(predictions, labels, change, groups)
    return known_errors(values)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, and 0 where it is 0 / 0."""
    ratio: np.ndarray = np.divide(above, below, out=np.zeros_like(below), where=below > 0)
    return ratio


@dataclass(frozen=True)
class Counts:
    """The counts of confusion tables that the metrics need: a whole table has classes x classes numbers.

    Args:
        right: Items on the diagonal, (tables,).
        predicted: Items predicted as each class, (tables, classes).
        gold: Items of each class, (tables, classes).
    """

    right: np.ndarray
    predicted: np.ndarray
    gold: np.ndarray

    def mcc(self) -> np.ndarray:
        """Return Matthews' correlation, (tables,), by Gorodkin 2004; 0 where it is 0 / 0."""
        total = self.gold.sum(axis=1)
        covariance = self.right * total - (self.predicted * self.gold).sum(axis=1)
        squares = ((total**2 - (margin**2).sum(axis=1)) for margin in (self.predicted, self.gold))
        return _ratio(covariance, np.sqrt(np.multiply(*squares)))

    def f1(self) -> np.ndarray:
        """Return the F1 of class 1 of two classes, (tables,): 2 TP / (2 TP + FP + FN); 0 where it is 0 / 0."""
        ones = self.predicted[:, 1] + self.gold[:, 1]
        return _ratio(self.right - self.gold.sum(axis=1) + ones, ones)  # 2 TP = TP + TN - N + (TP + FP) + (TP + FN)


def _resampled(predicted: np.ndarray, labels: np.ndarray, classes: int, groups: Groups | None) -> Counts:
    """Return the counts of resampled items or groups.

    To draw units with replacement is to draw how often each different unit occurs.
    """
    cell = predicted * classes + labels  # items of one cell are equal
    _, unit, sizes = np.unique(cell if groups is None else np.asarray(groups), return_inverse=True, return_counts=True)
    counts = np.zeros((len(sizes), 2 * classes + 1))
    for column, start in ((predicted, 0), (labels, classes)):
        np.add.at(counts, (unit, start + column), 1)
    counts[:, -1] = np.bincount(unit, weights=predicted == labels, minlength=len(sizes))
    times = sizes.astype(float) if groups is None else np.ones(len(sizes))  # how many units have these counts
    counts /= times[:, None]
    different, which = np.unique(counts, axis=0, return_inverse=True)
    times = np.bincount(which, weights=times)
    number = int(times.sum())
    drawn = np.random.default_rng(0).multinomial(number, times / number, size=RESAMPLES).astype(float) @ different
    return Counts(drawn[:, -1], drawn[:, :classes], drawn[:, classes:-1])


def _correlation_stderr(
    one: np.ndarray, two: np.ndarray, change: Callable[[np.ndarray], np.ndarray], groups: Groups | None
) -> float:
    """Return the standard error of Pearson's correlation of two changed columns, by scipy's bootstrap over the units.

    The units are the items, or the groups of items; of one unit, or of a constant column, it is nan.
    """
    from scipy.stats import bootstrap

    unit = np.arange(len(one)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = np.split(np.argsort(unit, kind="stable"), np.cumsum(np.bincount(unit))[:-1])

    def correlation(drawn: np.ndarray) -> float:
        rows = drawn if groups is None else np.concatenate([members[number] for number in drawn])
        a, b = (column - column.mean() for column in (change(one[rows]), change(two[rows])))
        return float(_ratio((a * b).sum(), np.sqrt((a**2).sum() * (b**2).sum())))

    if len(members) < 2 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return math.nan
    settings = {"vectorized": False, "n_resamples": RESAMPLES, "method": "percentile"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two items, some resamples are constant
        result = bootstrap((np.arange(len(members)),), correlation, rng=np.random.default_rng(0), **settings)
    return float(result.standard_error)
