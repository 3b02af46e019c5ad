"""Holm's correction for several comparisons: of p-values, and of intervals that agree with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smoa_lightning.ablation.statistics.differences import Difference
from smoa_lightning.ablation.statistics.intervals import checked
from smoa_lightning.common.errors import UserError


class Corrected(NamedTuple):
    """A difference after the correction for all differences of its family.

    Args:
        p: Adjusted p; ``None`` if it was not tested.
        interval: The difference with the interval that agrees with the adjusted p (``holm_levels``).
        joint: The difference with Bonferroni's interval. These intervals hold for the whole family together.
    """

    p: float | None
    interval: Difference
    joint: Difference


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    r"""Return adjusted p-values, so that the chance of any false rejection in the family stays below the level.

    For c comparisons with sorted p-values, :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (c - j + 1)\, p_{(j)})`. This
    holds for any dependence of the comparisons (Holm 1979, Scandinavian Journal of Statistics 6, 65), and is never less
    powerful than Bonferroni's :math:`c\,p`. Equal p-values stay equal, and the order is kept.

    Args:
        p_values: One for each comparison. None, for a comparison without a test, stays None and is not counted.

    Raises:
        UserError: A p-value is outside of [0, 1].

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    tested = [number for number, p in enumerate(p_values) if p is not None]
    p = np.array([p_values[number] for number in tested], dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise UserError(f"a p-value is {p[~((p >= 0) & (p <= 1))][0]}, but must be in [0, 1], or None without a test")
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    adjusted: list[float | None] = [None] * len(p_values)
    for position, value in zip(order, stepped, strict=True):
        adjusted[tested[position]] = float(value)
    return adjusted


def holm_levels(p_values: Sequence[float | None], alpha: float = 0.05) -> list[float | None]:
    r"""Return the level of each comparison's interval, so that interval and test agree.

    Holm's correction tests the j-th smallest p at :math:`\alpha / (c - j + 1)`, until the first that is not rejected. A
    rejected comparison has this level. The others have Bonferroni's level :math:`\alpha / c`. So the interval with the
    coverage 1 - level excludes zero if and only if the adjusted p is below :math:`\alpha`. The intervals of rejected
    comparisons do not hold together. All intervals at Bonferroni's level do, with the chance :math:`1 - \alpha`. So
    only they show that differences are within a margin.

    Args:
        p_values: One for each comparison; None stays None and is not counted.
        alpha: Level of the family.

    >>> holm_levels([0.01, 0.04, None, 0.03]), holm_levels([0.2, 0.001])
    ([0.016666666666666666, 0.016666666666666666, None, 0.016666666666666666], [0.025, 0.025])
    """
    adjusted = holm(p_values)
    rejected = sum(p is not None and p < checked(alpha, "the level") for p in adjusted)
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    levels: list[float | None] = [None] * len(p_values)
    for step, (_, place) in enumerate(tested):
        levels[place] = alpha / (len(tested) - (step if step < rejected else 0))
    return levels


def corrected(differences: Sequence[Difference], alpha: float = 0.05) -> list[Corrected]:
    """Return the adjusted p of each difference, and the difference with the intervals of Holm and of Bonferroni.

    Args:
        differences: All differences of the family.
        alpha: Level of the family.
    """
    p_values = [each.p for each in differences]
    levels = holm_levels(p_values, alpha)
    tested = sum(p is not None for p in p_values)
    return [
        Corrected(p, each, each) if level is None else Corrected(p, each.at(1 - level), each.at(1 - alpha / tested))
        for p, each, level in zip(holm(p_values), differences, levels, strict=True)
    ]
