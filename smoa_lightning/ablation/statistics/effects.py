"""The size of a difference over seeds, in units of its own standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy import special

from smoa_lightning.ablation.statistics.intervals import paired_spread


@dataclass(frozen=True)
class SeedEffect:
    """A standardised difference over paired seeds.

    Args:
        d_z: Mean of the differences divided by their standard deviation; None for one seed or without a spread.
        g_z: ``d_z`` corrected for its bias with few seeds; None for fewer than three seeds.
        n: Number of seeds.
    """

    d_z: float | None
    g_z: float | None
    n: int


def seed_effect(cell: ArrayLike, baseline: ArrayLike) -> SeedEffect:
    r"""Return Cohen's :math:`d_z` of paired seeds, and its value after Hedges' correction.

    .. math:: d_z = \bar d / s_d, \qquad g_z = J(n-1)\, d_z, \qquad
        J(\nu) = \frac{\Gamma(\nu/2)}{\sqrt{\nu/2}\;\Gamma((\nu-1)/2)}

    J is exact for normal differences (Hedges 1981, Journal of Educational Statistics 6, 107): .564 for three seeds,
    .798 for five. For two seeds J is zero and d_z has no expected value, so there is no g_z. d_z grows without bound
    as training becomes more repeatable. Read d_z together with the difference in points, never instead of it.

    Args:
        cell: (n,), one score for each seed.
        baseline: (n,), the scores of the same seeds.

    Raises:
        UserError: The two have different lengths, or a score is not a finite number.
    """
    n, mean, spread = paired_spread(cell, baseline)
    if not spread:
        return SeedEffect(None, None, n)
    d_z = mean / spread
    return SeedEffect(d_z, hedges(n - 1) * d_z if n > 2 else None, n)


def hedges(df: int) -> float:
    """Return Hedges' factor J for ``df`` > 1 degrees of freedom.

    >>> round(hedges(2), 4), round(hedges(4), 4)
    (0.5642, 0.7979)
    """
    return math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2)
