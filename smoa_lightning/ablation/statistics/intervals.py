"""The mean over seeds and its Student-t interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from smoa_lightning.common.errors import UserError

ROUNDING = 1e-12  # a spread below this share of the values is rounding error


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval.

    Args:
        value: The estimate.
        low: Lower end of the interval, None without an interval.
        high: Upper end of the interval, None without an interval.
        n: Number of seeds, or of scores if a seed has several.
        sd: Standard deviation over the seeds (with n - 1), None for one seed.
        confidence: Nominal coverage of the interval.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    sd: float | None
    confidence: float = 0.95


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    r"""Return the mean over seeds with its Student-t interval.

    .. math:: \bar x \pm t_{(1+c)/2,\,n-1}\, s / \sqrt n

    There is no interval for one seed, or if all seeds have the same score. A spread of zero does not show that a new
    seed would have this score. (``scipy.stats.t.interval`` returns nan in this case.)

    Args:
        values: (n,), one score for each seed.
        confidence: Nominal coverage c.

    Raises:
        UserError: There is no score, or a score is not a finite number.

    >>> round(mean_interval([0.61, 0.64, 0.62]).low, 4), mean_interval([0.61]).low
    (0.5854, None)
    """
    x = finite(values, "the scores of the seeds", dimensions=1)
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Estimate(mean, None, None, 1, None, confidence)
    sd = float(x.std(ddof=1))
    if sd <= ROUNDING * np.abs(x).max():
        return Estimate(mean, None, None, n, 0.0, confidence)
    half = student(confidence, n - 1) * sd / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, sd, confidence)


def paired_spread(cell: ArrayLike, baseline: ArrayLike) -> tuple[int, float, float]:
    """Return number, mean and standard deviation of the differences of paired seeds.

    The deviation is 0 for one seed, and if the differences vary only by rounding error.

    Args:
        cell: (n,), one score for each seed.
        baseline: (n,), the scores of the same seeds.

    Raises:
        UserError: The two have different lengths, or a score is not a finite number.
    """
    first, second = finite(cell, "the scores of the cell", 1), finite(baseline, "the scores of the baseline", 1)
    if len(first) != len(second):
        raise UserError(f"cannot pair {len(first)} scores with {len(second)} scores: give both for the same seeds")
    differences = first - second
    spread = float(differences.std(ddof=1)) if len(first) > 1 else 0.0
    rounding = ROUNDING * max(np.abs(first).max(), np.abs(second).max())
    return len(first), float(differences.mean()), spread if spread > rounding else 0.0


def student(confidence: float, df: float) -> float:
    """Return the two-sided critical value of Student's t with ``df`` degrees of freedom."""
    return float(special.stdtrit(df, (1 + checked(confidence, "the confidence")) / 2))


def student_p(t: float, df: float) -> float:
    """Return the two-sided p-value of Student's t."""
    return float(2 * special.stdtr(df, -abs(t)))


def checked(share: float, what: str) -> float:
    """Return ``share`` if it is strictly between 0 and 1.

    Raises:
        UserError: ``share`` is outside of this range.
    """
    if not 0 < share < 1:
        raise UserError(f"{what} is {share}, but must be between 0 and 1, for example 0.95")
    return share


def finite(values: ArrayLike, what: str, dimensions: int) -> NDArray[np.float64]:
    """Return ``values`` as a float array, after checking its dimensions and entries.

    Raises:
        UserError: The number of dimensions is different, there is no entry, or an entry is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or array.size == 0:
        raise UserError(
            f"{what} have the shape {array.shape}, but need {dimensions} dimension(s) and at least one entry"
        )
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise UserError(f"{what} have {count} value(s) that are not finite numbers: leave out those runs or items")
    return array
