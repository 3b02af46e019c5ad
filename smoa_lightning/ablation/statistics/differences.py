r"""A cell against the baseline: over paired seeds, and over paired seeds and items.

The model of ``crossed_difference``. With :math:`y_{si}` the score of the run with seed s on item i, the difference of
the two cells :math:`d_{si} = y^{cell}_{si} - y^{base}_{si}` is

.. math:: d_{si} = \delta + a_s + b_i + e_{si}, \qquad s = 1..n,\; i = 1..m

with independent random effects of the seed (:math:`\sigma_S^2`), of the item (:math:`\sigma_I^2`: some items suit one
method), and of both (:math:`\sigma_E^2`). :math:`\delta` is the difference for *new seeds and new items of the same
kind*, and :math:`\mathrm{Var}(\bar d) = \sigma_S^2/n + \sigma_I^2/m + \sigma_E^2/(nm)`. A t-test over seeds leaves the
middle term out (it speaks of these items only); a test over the items of one run, or of all runs pooled, leaves the
first one out. This is the crossed design of readers and cases in diagnostic imaging: Dorfman, Berbaum and Metz 1992
(Investigative Radiology 27, 723), with the degrees of freedom of Hillis 2007 (Statistics in Medicine 26, 596).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoa_lightning.ablation.statistics.intervals import ROUNDING, finite, paired_spread, student, student_p
from smoa_lightning.common.errors import UserError

# Both constants were chosen by the coverage of the interval over all shares of the variances (docs/statistics.md).
RESIDUAL_FLOOR = 0.3  # the seeds' mean square counts as this much of the residual's at least
MIXING = 1.5  # how much the degrees of freedom shrink where seeds and items both matter


class MeanSquares(NamedTuple):
    """Mean squares of differences by seeds and items: floats, or arrays of one shape."""

    seeds: Any
    items: Any
    residual: Any


@dataclass(frozen=True)
class Difference:
    """A cell's mean score minus the baseline's.

    Args:
        value: The difference.
        low: Lower end of its interval, None where there is none.
        high: Upper end of its interval, None where there is none.
        p: Two-sided p-value of "no difference", None where nothing can be tested.
        standard_error: Standard error of ``value``, None for one seed.
        df: Degrees of freedom of the interval, None where there is none.
        n_seeds: Number of paired seeds.
        n_items: Number of paired items; None where the items were not looked at.
        method: ``seeds``, ``items``, or ``seeds and items``.
        confidence: Nominal coverage of the interval.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    standard_error: float | None
    df: float | None
    n_seeds: int
    n_items: int | None
    method: str
    confidence: float = 0.95


def paired_difference(cell: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> Difference:
    r"""Return the difference over paired seeds, by the paired t-test.

    .. math:: t = \bar d / (s_d / \sqrt n), \qquad n - 1 \text{ degrees of freedom}

    For metrics that have no score of each item (BLEU of a corpus). It speaks of other seeds on *the same items*: where
    items have scores, use ``crossed_difference``. One seed, or differences without a spread, have neither interval nor
    p (no evidence is not evidence of a spread of zero).

    Args:
        cell: (n,), a score a seed.
        baseline: (n,), the scores of the same seeds.
        confidence: Nominal coverage.

    Raises:
        UserError: Not as many of one as of the other, or a score that is no finite number.
    """
    n, value, spread = paired_spread(cell, baseline)
    if not spread:
        return Difference(value, None, None, None, None, None, n, None, "seeds", confidence)
    return _student(value, spread / math.sqrt(n), n - 1, (n, None), "seeds", confidence)


def crossed_difference(cell: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> Difference:
    r"""Return the difference over paired seeds *and* paired items (the model is that of the module).

    With the mean squares of the seeds S, of the items I and of the rest E, and :math:`A = \max(I - E, 0)`,

    .. math:: \widehat{\mathrm{Var}}(\bar d) = \frac{\max(S, 0.3 E) + A}{nm}, \qquad
        \nu = \frac{(\max(S, 0.3 E) + A)^2}{S'^2/(n-1) + [I > E]\, I^2/(m-1)}, \qquad
        S' = S \left(1 + \frac{1.5\, A}{(S + A)(n-1)}\right)

    and the interval :math:`\bar d \pm t_\nu \sqrt{\widehat{\mathrm{Var}}}`, with :math:`\nu \le m - 1`. Without item
    effects it is the t-test over seeds. The floor under S and the factor of S' keep the coverage between 94 and 96 %
    for three and more seeds, whatever the shares of the variances; Hillis' own :math:`\nu` falls to 92 %
    (docs/statistics.md). Two seeds have an interval that may cover 90 % only. One seed has none: the spread of seeds
    is not known then, and ``mcnemar`` compares the two runs.

    Args:
        cell: (n, m), a row a seed, a column an item: 1 and 0, or any score.
        baseline: (n, m), the same seeds and items.
        confidence: Nominal coverage.

    Raises:
        UserError: Not the same shape, fewer than two items, or a score that is no finite number.
    """
    differences, scale = paired_table(cell, baseline)
    n, m = differences.shape
    value = float(differences.mean())
    if n == 1:
        return Difference(value, None, None, None, None, None, 1, m, "seeds and items", confidence)
    error, df = standard_error(mean_squares(differences), n, m)
    if float(error) <= ROUNDING * scale:  # the runs agree on every item, or differ by a constant
        p = 1.0 if abs(value) <= ROUNDING * scale else None
        return Difference(value, None, None, p, 0.0, None, n, m, "seeds and items", confidence)
    return _student(value, float(error), float(df), (n, m), "seeds and items", confidence)


def mean_squares(differences: NDArray[np.float64]) -> MeanSquares:
    """Return the mean squares of seeds, items and rest.

    Args:
        differences: (..., n, m) with n, m > 1.

    Returns:
        Three arrays (...): S = m Σ_s (d̄_s - d̄)² / (n-1), I = n Σ_i (d̄_i - d̄)² / (m-1), and
        E = Σ_si (d_si - d̄_s - d̄_i + d̄)² / ((n-1)(m-1)).
    """
    n, m = differences.shape[-2:]
    rows, columns = differences.mean(axis=-1, keepdims=True), differences.mean(axis=-2, keepdims=True)
    grand = rows.mean(axis=-2, keepdims=True)
    rest = differences - rows - columns + grand
    return MeanSquares(
        seeds=m * ((rows - grand) ** 2).sum(axis=(-2, -1)) / (n - 1),
        items=n * ((columns - grand) ** 2).sum(axis=(-2, -1)) / (m - 1),
        residual=(rest**2).sum(axis=(-2, -1)) / ((n - 1) * (m - 1)),
    )


def standard_error(squares: MeanSquares, n: int, m: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return standard error and degrees of freedom of the mean of n x m differences (``crossed_difference``).

    Args:
        squares: Their mean squares, floats or arrays.
        n: Number of seeds, two or more.
        m: Number of items, two or more.
    """
    seeds, items, residual = (np.asarray(square, dtype=np.float64) for square in squares)
    item_part = np.maximum(items - residual, 0)
    total = np.maximum(seeds, RESIDUAL_FLOOR * residual) + item_part
    mixed = np.divide(item_part, seeds + item_part, out=np.zeros_like(total), where=seeds + item_part > 0)
    uncertain = (seeds * (1 + MIXING * mixed / (n - 1))) ** 2 / (n - 1)
    uncertain = uncertain + np.where(items > residual, items, 0) ** 2 / (m - 1)
    most = np.full_like(total, m - 1)
    df = np.minimum(np.divide(total**2, uncertain, out=most.copy(), where=uncertain > 0), most)
    return np.sqrt(total / (n * m)), df


def paired_table(cell: ArrayLike, baseline: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Return the (n, m) differences of two cells, and the greatest size of a score.

    Raises:
        UserError: Not the same shape, fewer than two items, or a score that is no finite number.
    """
    first, second = finite(cell, "the scores of the cell", 2), finite(baseline, "the scores of the baseline", 2)
    if first.shape != second.shape or first.shape[1] < 2:
        raise UserError(
            f"scores of the shapes {first.shape} and {second.shape} are compared: both need the same seeds and items, "
            "and at least two items"
        )
    return first - second, float(max(np.abs(first).max(), np.abs(second).max()))


def _student(
    value: float, error: float, df: float, size: tuple[int, int | None], method: str, confidence: float
) -> Difference:
    half = student(confidence, df) * error
    p = student_p(value / error, df)
    return Difference(value, value - half, value + half, p, error, df, *size, method, confidence)
