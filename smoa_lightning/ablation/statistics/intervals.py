"""The mean over seeds and its Student-t interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from smoa_lightning.common.errors import UserError

ROUNDING = 1e-12  # a spread below this share of the values is the rounding of floats, not a spread


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval.

    Args:
        value: The estimate.
        low: Lower end of the interval; None where there is no interval.
        high: Upper end of the interval; None where there is no interval.
        n: Number of seeds, or of scores where there are several a seed.
        sd: Standard deviation over the seeds (with n - 1), None for one.
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

    One seed has no interval, and neither have equal scores of several seeds: a spread of zero is no evidence that
    another seed would score the same (``scipy.stats.t.interval`` says nan there).

    Args:
        values: (n,), a score a seed.
        confidence: Nominal coverage c.

    Raises:
        UserError: No score, or one that is not a finite number.

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

    The deviation is 0 for one seed, and where the differences vary by the rounding of floats only.

    Args:
        cell: (n,), a score a seed.
        baseline: (n,), the scores of the same seeds.

    Raises:
        UserError: Not as many of one as of the other, or a score that is no finite number.
    """
    first, second = finite(cell, "the scores of the cell", 1), finite(baseline, "the scores of the baseline", 1)
    if len(first) != len(second):
        raise UserError(f"{len(first)} scores are paired with {len(second)}: give both for the same seeds")
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
    """Return ``share`` if it lies strictly between 0 and 1.

    Raises:
        UserError: It does not.
    """
    if not 0 < share < 1:
        raise UserError(f"{what} is {share}: it has to lie between 0 and 1, 0.95 for instance")
    return share


def finite(values: ArrayLike, what: str, dimensions: int) -> NDArray[np.float64]:
    """Return ``values`` as a float array that has so many dimensions, at least one entry, and finite ones only.

    Raises:
        UserError: It has not.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or array.size == 0:
        raise UserError(f"{what} have the shape {array.shape}: {dimensions} dimension(s) and one entry at least needed")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise UserError(f"{what} have {count} entries that are no finite number: leave those runs or items out")
    return array
