r"""The difference of two trained models over the same items, and the mean of such differences over several tasks."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from smoa_lightning.ablation.statistics.differences import Difference, paired_difference
from smoa_lightning.ablation.statistics.intervals import student, student_p
from smoa_lightning.ablation.statistics.items import McNemar, mcnemar
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.item_statistics import by_groups

Groups = Sequence[Hashable] | None  # the group of each item


def item_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95, groups: Groups = None) -> Difference:
    r"""Return the difference of two trained models over paired items, by the paired t-test.

    .. math:: \bar d \pm t_{m-1}\, s_d / \sqrt m

    With ``groups``, the scores of groups from ``by_groups`` take the place of items, which gives the cluster-robust
    error. The result holds for these two models on new items of the same kind. It does not compare methods: a
    different seed gives a different model. There is no interval if the models differ by the same amount on every item,
    or if all items are of one group; p is 1 if they agree on every item.

    Args:
        first: (m,), one score for each item.
        second: (m,), the scores of the same items.
        confidence: Nominal coverage.
        groups: (m,), the group of each item; None for independent items.

    Raises:
        UserError: The two have different lengths, or a score is not a finite number.

    >>> found = item_difference([1, 1, 1, 0], [1, 0, 0, 0])
    >>> found.value, round(found.standard_error, 4), found.n_items
    (0.5, 0.2887, 4)
    >>> round(item_difference([1, 1, 1, 0], [1, 0, 0, 0], groups="abbc").standard_error, 4)
    0.375
    """
    found = paired_difference(first, second, confidence)
    items, number = found.n_seeds, _number_of_groups(groups)
    if number == 1:
        return replace(found, low=None, high=None, p=None, standard_error=None, df=None, n_seeds=1, n_items=items,
                       method="items", n_groups=1)  # fmt: skip
    if number is not None and groups is not None:
        one, two = (by_groups(np.asarray(side, dtype=np.float64), groups) for side in (first, second))
        found = replace(paired_difference(one, two, confidence), value=found.value, n_groups=number)
    if found.p is None and found.n_seeds > 1 and found.value == 0:
        found = replace(found, p=1.0, standard_error=0.0)
    return replace(found, n_seeds=1, n_items=items, method="items")


def _number_of_groups(groups: Groups) -> int | None:
    """Return the number of groups; None if each item is a group of its own."""
    number = None if groups is None else len(set(groups))
    return None if groups is None or number == len(groups) else number


def accuracy_difference(
    first: ArrayLike, second: ArrayLike, confidence: float = 0.95, groups: Groups = None
) -> Difference:
    r"""Return the difference of the accuracies of two trained models on the same items.

    p is that of the exact McNemar test. The interval is that of Bonett and Price (2012, Journal of Educational and
    Behavioral Statistics 37, 479) with Student's t: with the numbers b and c of items that only the first and only the
    second model has right, :math:`\tilde p_b = (b + 1) / (m + 2)` and :math:`\tilde p_c = (c + 1) / (m + 2)`,

    .. math:: \tilde p_b - \tilde p_c \pm t_{m-1} \sqrt{(\tilde p_b + \tilde p_c -
        (\tilde p_b - \tilde p_c)^2) / (m + 2)}

    The paired t interval would exclude 0 for a few different items, where the exact test finds nothing.

    McNemar's test takes the items as independent. With G ``groups``, the variance of this interval is multiplied by the
    design effect (Kish 1965): the cluster-robust variance of the difference over that of independent items, at least 1.
    Interval and p are then those of t with G - 1 degrees of freedom.

    Args:
        first: (m,), 1 or 0 for right and wrong.
        second: (m,), on the same items.
        confidence: Nominal coverage.
        groups: (m,), the group of each item; None for independent items.

    Raises:
        UserError: A value is not 0 or 1, or the numbers of items differ.

    >>> found = accuracy_difference([1] * 5 + [0] * 15, [0] * 20)
    >>> found.value, found.p, round(found.low, 3), round(found.high, 3)
    (0.25, 0.0625, -0.003, 0.458)
    """
    counts, number = mcnemar(first, second), _number_of_groups(groups)
    found = item_difference(first, second, confidence, groups)
    m = counts.n_items
    if m < 2 or number == 1:
        return found if number == 1 else replace(found, p=counts.p)
    middle, variance = _bonett_price(counts, _design_effect(first, second, groups))
    df = m - 1 if number is None else number - 1
    half = student(confidence, df) * math.sqrt(variance)
    p = counts.p if number is None else student_p(middle / math.sqrt(variance), df)
    return replace(found, low=max(-1.0, middle - half), high=min(1.0, middle + half), p=p, df=float(df))


def _design_effect(first: ArrayLike, second: ArrayLike, groups: Groups) -> float:
    """Return the variance of a mean difference over groups, divided by that over independent items; at least 1."""
    free, grouped = (item_difference(first, second, groups=each).standard_error for each in (None, groups))
    return max(1.0, (grouped / free) ** 2) if free and grouped else 1.0


def _bonett_price(counts: McNemar, design_effect: float) -> tuple[float, float]:
    """Return the middle and the variance of the interval of Bonett and Price, with a design effect."""
    m = counts.n_items
    b, c = ((number + 1) / (m + 2) for number in (counts.only_first, counts.only_second))
    return b - c, design_effect * (b + c - (b - c) ** 2) / (m + 2)


def mean_of_differences(differences: Sequence[Difference]) -> Difference:
    r"""Return the mean of the differences of several tasks, each task with the same weight.

    The items of different tasks are independent, so with T tasks

    .. math:: \bar d = \frac1T \sum_t d_t, \qquad s = \frac1T \sqrt{\sum_t s_t^2}, \qquad
        \nu = \frac{(\sum_t s_t^2)^2}{\sum_t s_t^4 / \nu_t}

    with the degrees of freedom of Welch and Satterthwaite. A task on which the models never differ adds no variance.
    There is no test if the variance of a task is not known: it has one item, or the same difference on every item.
    For accuracies use ``mean_of_accuracy_differences``.

    Args:
        differences: One for each task, from ``item_difference``.

    Raises:
        UserError: There is no difference.
    """
    if not differences:
        raise UserError("the mean of differences needs at least one task")
    value = sum(each.value for each in differences) / len(differences)
    items, confidence = sum(each.n_items or 0 for each in differences), differences[0].confidence
    errors = [each.standard_error for each in differences]
    parts = [(each.standard_error**2, each.df) for each in differences if each.standard_error and each.df]
    if None in errors or not parts:
        p, error = (None, None) if None in errors else (1.0, 0.0)
        return Difference(value, None, None, p, error, None, 1, items, "items", confidence)
    spread, df = _welch(parts, len(differences))
    half, tested = student(confidence, df) * spread, student_p(value / spread, df)
    return Difference(value, value - half, value + half, tested, spread, df, 1, items, "items", confidence)


def mean_of_accuracy_differences(
    tasks: Sequence[tuple[ArrayLike, ArrayLike]],
    confidence: float = 0.95,
    groups: Sequence[Groups] | None = None,
) -> Difference:
    r"""Return the mean of the differences of two trained models' accuracies on several tasks, of the same weight.

    With the middle :math:`\tilde d_t` and the variance :math:`\tilde s_t^2` of each task's interval of Bonett and Price
    (``accuracy_difference``), interval and test are

    .. math:: \frac1T \sum_t \tilde d_t \pm t_\nu \tilde s, \qquad \tilde s = \frac1T \sqrt{\sum_t \tilde s_t^2}

    with :math:`\nu` of ``mean_of_differences``. With the sample variances, a task with few different items would have
    too small a variance, and a task without any would have none: the mean would be tested more leniently than the task.

    Args:
        tasks: For each task the items of both models, 1 or 0 for right and wrong.
        confidence: Nominal coverage.
        groups: For each task the group of each item, or None for independent items.

    Returns:
        The difference; ``value`` is the plain mean. There is no test if a task has fewer than two
        items or groups.

    Raises:
        UserError: There is no task, a value is not 0 or 1, or the numbers of items differ.

    >>> some, none = ([1] * 5 + [0] * 15, [0] * 20), ([1] * 20, [1] * 20)
    >>> round(accuracy_difference(*some).p, 3), round(mean_of_accuracy_differences([some, none]).p, 3)
    (0.062, 0.085)
    """
    if not tasks:
        raise UserError("the mean of differences needs at least one task")
    counts = [mcnemar(first, second) for first, second in tasks]
    items = sum(each.n_items for each in counts)
    value = sum((each.only_first - each.only_second) / each.n_items for each in counts) / len(counts)
    groups = [None] * len(tasks) if groups is None else groups
    sizes = [_number_of_groups(own) or each.n_items for own, each in zip(groups, counts, strict=True)]
    if min(sizes) < 2:
        return Difference(value, None, None, None, None, None, 1, items, "items", confidence)
    effects = [_design_effect(*task, own) for task, own in zip(tasks, groups, strict=True)]
    shrunk = [_bonett_price(each, effect) for each, effect in zip(counts, effects, strict=True)]
    middle = sum(each for each, _ in shrunk) / len(counts)
    parts = [(variance, size - 1) for (_, variance), size in zip(shrunk, sizes, strict=True)]
    spread, df = _welch(parts, len(counts))
    half = student(confidence, df) * spread
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Difference(value, low, high, student_p(middle / spread, df), spread, df, 1, items, "items", confidence)


def _welch(parts: Sequence[tuple[float, float]], tasks: int) -> tuple[float, float]:
    """Return the standard error of the mean of tasks, and its degrees of freedom, from variances and their df."""
    total = sum(variance for variance, _ in parts)
    return math.sqrt(total) / tasks, total**2 / sum(variance**2 / df for variance, df in parts)
