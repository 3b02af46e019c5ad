r"""The difference of two trained models over the same items, and the mean of such differences over several tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoa_lightning.ablation.statistics.differences import Difference, paired_difference
from smoa_lightning.ablation.statistics.intervals import student, student_p
from smoa_lightning.ablation.statistics.items import mcnemar
from smoa_lightning.common.errors import UserError


def item_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Difference:
    r"""Return the difference of two trained models over paired items, by the paired t-test.

    .. math:: \bar d \pm t_{m-1}\, s_d / \sqrt m

    The result holds for these two models on new items of the same kind. It does not compare methods: a different seed
    gives a different model. There is no interval if the models differ by the same amount on every item; p is 1 if they
    agree on every item.

    Args:
        first: (m,), one score for each item.
        second: (m,), the scores of the same items.
        confidence: Nominal coverage.

    Raises:
        UserError: The two have different lengths, or a score is not a finite number.

    >>> found = item_difference([1, 1, 1, 0], [1, 0, 0, 0])
    >>> found.value, round(found.standard_error, 4), found.n_items
    (0.5, 0.2887, 4)
    """
    found = paired_difference(first, second, confidence)
    if found.p is None and found.n_seeds > 1 and found.value == 0:
        found = replace(found, p=1.0, standard_error=0.0)
    return replace(found, n_seeds=1, n_items=found.n_seeds, method="items")


def accuracy_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Difference:
    r"""Return the difference of the accuracies of two trained models on the same items.

    p is that of the exact McNemar test. The interval is that of Bonett and Price (2012, Journal of Educational and
    Behavioral Statistics 37, 479) with Student's t: with the numbers b and c of items that only the first and only the
    second model has right, :math:`\tilde p_b = (b + 1) / (m + 2)` and :math:`\tilde p_c = (c + 1) / (m + 2)`,

    .. math:: \tilde p_b - \tilde p_c \pm t_{m-1} \sqrt{(\tilde p_b + \tilde p_c -
        (\tilde p_b - \tilde p_c)^2) / (m + 2)}

    The paired t interval would exclude 0 for a few different items, where the exact test finds nothing.

    Args:
        first: (m,), 1 or 0 for right and wrong.
        second: (m,), on the same items.
        confidence: Nominal coverage.

    Raises:
        UserError: A value is not 0 or 1, or the numbers of items differ.

    >>> found = accuracy_difference([1] * 5 + [0] * 15, [0] * 20)
    >>> found.value, found.p, round(found.low, 3), round(found.high, 3)
    (0.25, 0.0625, -0.003, 0.458)
    """
    counts = mcnemar(first, second)
    found = item_difference(first, second, confidence)
    m = counts.n_items
    if m < 2:
        return replace(found, p=counts.p)
    b, c = ((number + 1) / (m + 2) for number in (counts.only_first, counts.only_second))
    half = student(confidence, m - 1) * math.sqrt((b + c - (b - c) ** 2) / (m + 2))
    return replace(found, low=max(-1.0, b - c - half), high=min(1.0, b - c + half), p=counts.p, df=float(m - 1))


def perplexity_scores(nll: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
    r"""Return one score for each item, so that their mean is the perplexity and their spread is that of the perplexity.

    With :math:`r = \sum_i n_i / \sum_i t_i`, the perplexity is :math:`e^r`, and the scores are its linearisation

    .. math:: v_i = e^r \left(1 + (n_i - r\, t_i) / \bar t\right)

    The standard deviation of :math:`v` over :math:`\sqrt m` is the standard error of the delta method. Differences of
    two models over paired items follow from paired scores.

    Args:
        nll: (m,), the negative log-likelihood of each item.
        tokens: (m,), the number of tokens of each item.

    >>> perplexity_scores([2.0, 4.0], [1, 1]).mean().round(4), round(math.exp(3.0), 4)
    (np.float64(20.0855), 20.0855)
    """
    n, t = np.asarray(nll, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    rate = n.sum() / t.sum()
    scores: NDArray[np.float64] = np.exp(rate) * (1 + (n - rate * t) / t.mean())
    return scores


def mean_of_differences(differences: Sequence[Difference]) -> Difference:
    r"""Return the mean of the differences of several tasks, each task with the same weight.

    The items of different tasks are independent, so with T tasks

    .. math:: \bar d = \frac1T \sum_t d_t, \qquad s = \frac1T \sqrt{\sum_t s_t^2}, \qquad
        \nu = \frac{(\sum_t s_t^2)^2}{\sum_t s_t^4 / \nu_t}

    with the degrees of freedom of Welch and Satterthwaite. A task on which the models never differ adds no variance.

    Args:
        differences: One for each task, from ``item_difference``.

    Raises:
        UserError: There is no difference.
    """
    if not differences:
        raise UserError("the mean of differences needs at least one task")
    value = sum(each.value for each in differences) / len(differences)
    items = sum(each.n_items or 0 for each in differences)
    confidence = differences[0].confidence
    squares = [(each.standard_error**2, each.df) for each in differences if each.standard_error and each.df]
    if not squares:
        agree = all(each.value == 0 for each in differences)
        p, error = (1.0, 0.0) if agree else (None, None)
        return Difference(value, None, None, p, error, None, 1, items, "items", confidence)
    total = sum(square for square, _ in squares)
    spread, df = math.sqrt(total) / len(differences), total**2 / sum(square**2 / df for square, df in squares)
    half, tested = student(confidence, df) * spread, student_p(value / spread, df)
    return Difference(value, value - half, value + half, tested, spread, df, 1, items, "items", confidence)
