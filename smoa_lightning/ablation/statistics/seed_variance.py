r"""The variance over seeds, estimated from all cells of a study instead of one pair.

With three seeds a difference has two degrees of freedom for its seed variance, so its critical value is 4.3. Cells that
are trained alike vary alike. So each comparison's mean square of seeds S is shrunken towards the pooled one:

.. math:: S' = \frac{d_0 S_{pool} + (n-1) S}{d_0 + n - 1}, \qquad f = \min(d_0 + n - 1, f_{pool})

with f degrees of freedom (the form of Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3(1), with
a fixed prior weight :math:`d_0`). With two cells :math:`S_{pool} = S` and f = n - 1, so nothing changes. If the
variances of the cells differ by Bartlett's test, each comparison keeps its own S.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

# Chosen by benchmarks/family_error.py: with more weight a baseline that is three times as noisy raises the error.
PRIOR_DF = 2.0
UNEQUAL = 0.2  # p of Bartlett's test below which variances are not pooled: with few seeds its power is low


@dataclass(frozen=True)
class Pooled:
    """The variance over seeds of a cell's score, pooled over cells. The numbers may be arrays of the same shape.

    Args:
        variance: The variance of one cell's score over seeds. For differences, without the part that cells share.
        df: Its degrees of freedom.
        bartlett: p of Bartlett's test of equal variances; nan if it cannot be computed.
        cells: Number of cells.
    """

    variance: Any
    df: Any
    bartlett: Any
    cells: int

    @property
    def used(self) -> Any:
        """Whether comparisons use the pooled variance."""
        return ~(np.asarray(self.bartlett) < UNEQUAL)

    def times(self, factor: float) -> Pooled:
        """Return the variance of a sum of cells with weights w: ``factor`` is Σ w², 2 for a difference."""
        return replace(self, variance=factor * self.variance)


def pooled_for_differences(scores: ArrayLike) -> Pooled:
    r"""Return the variance over seeds that two cells of a comparison do not share.

    .. math:: R = \frac{1}{(C-1)(n-1)} \sum_{cs} (\bar y_{cs} - \bar y_c - \bar y_s + \bar y)^2

    is the residual mean square of seed x cell, with (C-1)(n-1) degrees of freedom. The variance of a difference of two
    cells with the same seed is 2 R. Bartlett's test compares the residual variances of the cells.

    Args:
        scores: (..., C, n), the mean score of each of C cells with each of n seeds, both at least two.
    """
    y = np.asarray(scores, dtype=np.float64)
    cells, n = y.shape[-2:]
    rest = y - y.mean(axis=-2, keepdims=True) - y.mean(axis=-1, keepdims=True) + y.mean(axis=(-2, -1), keepdims=True)
    squares = (rest**2).sum(axis=-1)
    df = (cells - 1) * (n - 1)
    unequal = bartlett(squares / (n - 1), n - 1) if cells > 2 else np.full(y.shape[:-2], np.nan)
    return Pooled(squares.sum(axis=-1) / df, df, unequal, cells)


def pooled_for_gains(scores: ArrayLike) -> Pooled:
    r"""Return the variance over seeds of a cell's score, which its gain over the base model has.

    The base model has no seed, so effects of a seed on all cells are part of the gain. With the mean square M of the
    seeds' means and the residual R of ``pooled_for_differences``, the mean variance of the cells is
    :math:`(M + (C-1) R)/C`. Its degrees of freedom (Satterthwaite 1946, Biometrics Bulletin 2, 110) are few if the
    cells vary together:

    .. math:: f = \frac{(M + (C-1)R)^2}{(M^2 + (C-1) R^2) / (n-1)}

    Args:
        scores: (..., C, n), the mean score of each of C cells with each of n seeds, n at least two.
    """
    y = np.asarray(scores, dtype=np.float64)
    cells, n = y.shape[-2:]
    variances = y.var(axis=-1, ddof=1)
    if cells == 1:
        return Pooled(variances[..., 0], n - 1, np.full(y.shape[:-2], np.nan), 1)
    shared, own = cells * y.mean(axis=-2).var(axis=-1, ddof=1), pooled_for_differences(y).variance
    total, parts = shared + (cells - 1) * own, shared**2 + (cells - 1) * own**2
    df = np.divide((n - 1) * total**2, parts, out=np.full_like(total, n - 1.0), where=parts > 0)
    return Pooled(variances.mean(axis=-1), df, bartlett(variances, n - 1), cells)


def shrunken(own: Any, own_df: int, pooled: Pooled | None) -> tuple[Any, Any]:
    """Return the shrunken variance and its degrees of freedom (equation: see the module).

    Args:
        own: A comparison's own variance, or mean square.
        own_df: Its degrees of freedom, n - 1.
        pooled: The pooled variance of the same quantity; None for the own variance.
    """
    if pooled is None:
        return own, float(own_df)
    variance = (PRIOR_DF * pooled.variance + own_df * own) / (PRIOR_DF + own_df)
    df = np.minimum(PRIOR_DF + own_df, pooled.df)
    return np.where(pooled.used, variance, own), np.where(pooled.used, df, float(own_df))


def bartlett(variances: ArrayLike, df: int) -> NDArray[np.float64]:
    """Return p of Bartlett's test of equal variances (1937, Proceedings of the Royal Society A 160, 268).

    Args:
        variances: (..., C), each with ``df`` degrees of freedom.
        df: Degrees of freedom of each variance.

    Returns:
        (...): p; 0 if only some variances are zero, nan if all are.
    """
    v = np.asarray(variances, dtype=np.float64)
    cells = v.shape[-1]
    if cells < 2:
        return np.full(v.shape[:-1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = df * (cells * np.log(v.mean(axis=-1)) - np.log(v).sum(axis=-1))
        p = special.chdtrc(cells - 1, np.maximum(statistic, 0) / (1 + (cells + 1) / (3 * cells * df)))
    found: NDArray[np.float64] = p
    return found
