r"""Scores of a curve at a given level of another metric, so that curves can be compared where they are equal by it.

A curve has J points, for example a method with J learning rates. Point j has the score :math:`x_{js}` of seed s by the
first metric, and :math:`y_{jsi}` of item i by the second. The level t is first reached between the points j - 1 and j
(of the means over seeds). With :math:`w = (\bar x_{j-1} - t) / (\bar x_{j-1} - \bar x_j)`,

.. math:: y_{si}(t) = (1-w)\, y_{j-1,si} + w\, y_{jsi} + b_i \left(t - (1-w)\, x_{j-1,s} - w\, x_{js}\right), \qquad
    b_i = \frac{\bar y_{ji} - \bar y_{j-1,i}}{\bar x_j - \bar x_{j-1}}

The last term moves each seed along the chord to the level. It is 0 in the mean over seeds: it only removes the part of
the spread that is due to seeds that learned more. Between two points the curve is taken as straight: use near points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoa_lightning.ablation.statistics.intervals import finite
from smoa_lightning.common.errors import UserError


def at_level(
    first: ArrayLike, second: ArrayLike, level: float, higher_is_better: bool = False
) -> tuple[NDArray[np.float64], int, float]:
    """Return the scores by the second metric where the first one reaches a level (equation: see the module).

    Args:
        first: (J, n), the scores of J points with n seeds by the first metric, in the order of the curve.
        second: (J, n, m), the scores of m items by the second metric.
        level: The level; the first point is worse.
        higher_is_better: Whether the first metric grows towards the level.

    Returns:
        (n, m) scores, the number j of the point that reaches the level, and the weight w of this point.

    Raises:
        UserError: The first point is not worse than the level, or no point reaches it.
    """
    x, y = finite(first, "the scores of the curve", 2), np.asarray(second, dtype=np.float64)
    means = x.mean(axis=1)
    reached = np.flatnonzero(means >= level if higher_is_better else means <= level)
    if not reached.size or reached[0] == 0:
        raise UserError(f"{'the beginning' if reached.size else 'no point'} of the curve reaches the level")
    j = int(reached[0])
    w = float((means[j - 1] - level) / (means[j - 1] - means[j]))
    apart = level - (1 - w) * x[j - 1] - w * x[j]
    slope = (y[j].mean(axis=0) - y[j - 1].mean(axis=0)) / (means[j] - means[j - 1])
    found: NDArray[np.float64] = (1 - w) * y[j - 1] + w * y[j] + apart[:, None] * slope
    return found, j, w


def common_level(starts: ArrayLike, best: ArrayLike, share: float, higher_is_better: bool = False) -> float:
    """Return a level that all curves reach: the worst of start + share of the gain over the curves.

    Args:
        starts: The score at the start of each curve.
        best: The best score of each curve.
        share: Share of the gain, from 0 to 1.
        higher_is_better: Whether the score grows with the gain.

    >>> common_level([4.0, 4.0], [2.0, 3.0], 0.5)
    3.5
    """
    first = np.asarray(starts, dtype=np.float64)
    each = first + share * (np.asarray(best, dtype=np.float64) - first)
    return float(each.min() if higher_is_better else each.max())
