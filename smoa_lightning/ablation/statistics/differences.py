r"""The difference of a cell from the baseline: over paired seeds, and over paired seeds and items.

The model of ``crossed_difference``: let :math:`y_{si}` be the score of the run with seed s on item i. The difference of
the two cells, :math:`d_{si} = y^{cell}_{si} - y^{base}_{si}`, is

.. math:: d_{si} = \delta + a_s + b_i + e_{si}, \qquad s = 1..n,\; i = 1..m

with independent random effects of the seed (:math:`\sigma_S^2`), of the item (:math:`\sigma_I^2`: some items suit one
method), and of both (:math:`\sigma_E^2`). :math:`\delta` is the difference for *new seeds and new items of the same
kind*, and :math:`\mathrm{Var}(\bar d) = \sigma_S^2/n + \sigma_I^2/m + \sigma_E^2/(nm)`. A t-test over seeds leaves out
the middle term, so its result holds for these items only. A test over the items of one run, or of all runs pooled,
leaves out the first term. The design is that of crossed readers and cases in diagnostic imaging: Dorfman, Berbaum and
Metz 1992 (Investigative Radiology 27, 723). The degrees of freedom follow Hillis 2007 (Statistics in Medicine 26, 596).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoa_lightning.ablation.statistics.intervals import ROUNDING, finite, paired_spread, student, student_p
from smoa_lightning.ablation.statistics.seed_variance import Pooled, shrunken
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.item_statistics import by_groups

# Both constants were chosen so that the interval covers well for all shares of the variances (docs/statistics.md).
RESIDUAL_FLOOR = 0.3  # lower bound of the seeds' mean square, as a share of the residual's
MIXING = 1.5  # how much the degrees of freedom shrink where seeds and items both matter


class MeanSquares(NamedTuple):
    """Mean squares of differences by seeds and items: floats, or arrays of the same shape."""

    seeds: Any
    items: Any
    residual: Any


@dataclass(frozen=True)
class Difference:
    """A cell's mean score minus the baseline's.

    Args:
        value: The difference.
        low: Lower end of the interval, None without an interval.
        high: Upper end of the interval, None without an interval.
        p: Two-sided p-value of "no difference", None if no test is possible.
        standard_error: Standard error of ``value``, None for one seed.
        df: Degrees of freedom of the interval, None without an interval.
        n_seeds: Number of paired seeds.
        n_items: Number of paired items, None if the items were not used.
        method: ``seeds``, ``items``, or ``seeds and items``.
        confidence: Nominal coverage of the interval.
        n_groups: Number of groups of items, None if each item is a group of its own.
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
    n_groups: int | None = None

    def at(self, confidence: float) -> Difference:
        """Return the same difference with the t-interval of another confidence; unchanged without an interval."""
        if self.standard_error is None or self.df is None:
            return self
        half = student(confidence, self.df) * self.standard_error
        return replace(self, low=self.value - half, high=self.value + half, confidence=confidence)


def paired_difference(
    cell: ArrayLike, baseline: ArrayLike, confidence: float = 0.95, pooled: Pooled | None = None
) -> Difference:
    r"""Return the difference over paired seeds, by the paired t-test.

    .. math:: t = \bar d / (s_d / \sqrt n), \qquad n - 1 \text{ degrees of freedom}

    With ``pooled`` the variance :math:`s_d^2` is the shrunken one of ``seed_variance``, with its degrees of freedom.

    Use this for metrics without a score for each item (BLEU of a corpus). The result holds for new seeds on *the same
    items*. If items have scores, use ``crossed_difference``. There is no interval and no p for one seed, or for
    differences without a spread. A spread of zero does not show that seeds do not vary.

    Args:
        cell: (n,), one score for each seed.
        baseline: (n,), the scores of the same seeds.
        confidence: Nominal coverage.
        pooled: Variance over seeds of this difference, pooled over cells; None for the variance of the pair alone.

    Raises:
        UserError: The two have different lengths, or a score is not a finite number.
    """
    n, value, spread = paired_spread(cell, baseline)
    if not spread:
        return Difference(value, None, None, None, None, None, n, None, "seeds", confidence)
    variance, df = shrunken(spread**2, n - 1, pooled)
    return _student(value, math.sqrt(float(variance) / n), float(df), (n, None), "seeds", confidence)


def crossed_difference(
    cell: ArrayLike,
    baseline: ArrayLike,
    confidence: float = 0.95,
    pooled: Pooled | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Difference:
    r"""Return the difference over paired seeds *and* paired items (model: see the module).

    With the mean squares S of the seeds, I of the items and E of the residual, and :math:`A = \max(I - E, 0)`,

    .. math:: \widehat{\mathrm{Var}}(\bar d) = \frac{\max(S, 0.3 E) + A}{nm}, \qquad
        \nu = \frac{(\max(S, 0.3 E) + A)^2}{S'^2/(n-1) + [I > E]\, I^2/(m-1)}, \qquad
        S' = S \left(1 + \frac{1.5\, A}{(S + A)(n-1)}\right)

    and the interval is :math:`\bar d \pm t_\nu \sqrt{\widehat{\mathrm{Var}}}`, with :math:`\nu \le m - 1`. Without item
    effects the test equals the t-test over seeds. The lower bound of S and the factor of S' keep the coverage between
    94 and 96 %, for three or more seeds and all variances. With the original :math:`\nu` of Hillis it falls to 92 %
    (docs/statistics.md). With two seeds the interval may cover only 90 %. With one seed there is no interval, since the
    spread over seeds is unknown; ``mcnemar`` then compares the two runs.

    With ``pooled``, S is the shrunken mean square of ``seed_variance``, and its degrees of freedom take the place of
    n - 1. With ``groups``, the groups of ``by_groups`` take the place of items.

    Args:
        cell: (n, m), one row for each seed, one column for each item: 1 and 0, or any score.
        baseline: (n, m), the same seeds and items.
        confidence: Nominal coverage.
        pooled: Variance over seeds of this difference, pooled over cells; None for the variance of the pair alone.
        groups: (m,), the group of each item; None for independent items.

    Raises:
        UserError: The shapes differ, there are fewer than two items or groups, or a score is not a finite number.
    """
    differences, scale = paired_table(cell, baseline)
    if groups is not None and len(set(groups)) < differences.shape[1]:
        first, second = (by_groups(np.asarray(each, dtype=np.float64), groups) for each in (cell, baseline))
        found = crossed_difference(first, second, confidence, pooled)
        value = float(differences.mean())  # that of the groups is the same but for rounding
        return replace(found, value=value, n_items=differences.shape[1], n_groups=first.shape[1])
    n, m = differences.shape
    value = float(differences.mean())
    if n == 1:
        return Difference(value, None, None, None, None, None, 1, m, "seeds and items", confidence)
    error, df = standard_error(mean_squares(differences), n, m, pooled)
    if float(error) <= ROUNDING * scale:  # the runs agree on every item, or differ by a constant
        p = 1.0 if abs(value) <= ROUNDING * scale else None
        return Difference(value, None, None, p, 0.0, None, n, m, "seeds and items", confidence)
    return _student(value, float(error), float(df), (n, m), "seeds and items", confidence)


def mean_squares(differences: NDArray[np.float64]) -> MeanSquares:
    """Return the mean squares of seeds, items and residual.

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


def standard_error(
    squares: MeanSquares, n: int, m: int, pooled: Pooled | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return standard error and degrees of freedom of the mean of n x m differences (``crossed_difference``).

    Args:
        squares: Mean squares of the differences, floats or arrays.
        n: Number of seeds, two or more.
        m: Number of items, two or more.
        pooled: Variance over seeds of the difference, pooled over cells; None for ``squares.seeds`` alone.
    """
    own = np.asarray(squares.seeds, dtype=np.float64)
    seeds, seeds_df = shrunken(own, n - 1, None if pooled is None else pooled.times(m))
    return crossed_error(squares._replace(seeds=seeds), seeds_df, n, m)


def crossed_error(
    squares: MeanSquares, seeds_df: Any, n: int, m: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return standard error and degrees of freedom for a mean square of seeds with ``seeds_df`` degrees of freedom.

    Args:
        squares: Mean squares of the differences, floats or arrays.
        seeds_df: Degrees of freedom of ``squares.seeds``.
        n: Number of seeds, two or more.
        m: Number of items, two or more.
    """
    seeds, items, residual = (np.asarray(square, dtype=np.float64) for square in squares)
    item_part = np.maximum(items - residual, 0)
    total = np.maximum(seeds, RESIDUAL_FLOOR * residual) + item_part
    mixed = np.divide(item_part, seeds + item_part, out=np.zeros_like(total), where=seeds + item_part > 0)
    uncertain = (seeds * (1 + MIXING * mixed / seeds_df)) ** 2 / seeds_df
    uncertain = uncertain + np.where(items > residual, items, 0) ** 2 / (m - 1)
    most = np.full_like(total, m - 1)
    df = np.minimum(np.divide(total**2, uncertain, out=most.copy(), where=uncertain > 0), most)
    return np.sqrt(total / (n * m)), df


def paired_table(cell: ArrayLike, baseline: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Return the (n, m) differences of two cells, and the largest absolute score.

    Raises:
        UserError: The shapes differ, there are fewer than two items, or a score is not a finite number.
    """
    first, second = finite(cell, "the scores of the cell", 2), finite(baseline, "the scores of the baseline", 2)
    if first.shape != second.shape or first.shape[1] < 2:
        raise UserError(
            f"cannot compare scores of the shapes {first.shape} and {second.shape}: both need the same seeds and "
            "items, and at least two items"
        )
    return first - second, float(max(np.abs(first).max(), np.abs(second).max()))


def _student(
    value: float, error: float, df: float, size: tuple[int, int | None], method: str, confidence: float
) -> Difference:
    half = student(confidence, df) * error
    p = student_p(value / error, df)
    return Difference(value, value - half, value + half, p, error, df, *size, method, confidence)
