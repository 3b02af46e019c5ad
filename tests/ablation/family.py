"""Errors and power of a family of comparisons with one baseline, in simulated runs without a difference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from smoa_lightning.ablation.statistics import mean_squares, pooled_for_differences, seed_variance, standard_error

LEVEL, POWER = 0.05, 0.8


class Family:
    """Differences of each cell from the baseline in many repeats, with their half widths at several levels.

    Args:
        answers: (cells, repeats, seeds, items), the baseline first.
        weight: Weight of the pooled variance; 0 for each comparison's own variance.
    """

    def __init__(self, answers: NDArray[np.float64], weight: float) -> None:
        n, m = answers.shape[-2:]
        found = pooled_for_differences(np.moveaxis(answers.mean(axis=-1), 0, -2)).times(2) if weight else None
        differences = answers[1:] - answers[0]
        self.values = differences.mean(axis=(-2, -1))
        usual, seed_variance.PRIOR_DF = seed_variance.PRIOR_DF, weight
        self.error, self.df = standard_error(mean_squares(differences), n, m, found)
        seed_variance.PRIOR_DF = usual
        self.kept = np.ones(answers.shape[1]) if found is None else np.asarray(found.used, dtype=float)

    def half(self, level: float) -> NDArray[np.float64]:
        """Return the half widths of intervals with the coverage 1 - ``level``."""
        return np.asarray(special.stdtrit(self.df, 1 - level / 2) * self.error)

    def numbers(self) -> tuple[float, ...]:
        """Return coverage, family-wise error, mean half width and detectable difference; all in percent."""
        p = np.sort(2 * special.stdtr(self.df, -np.abs(self.values) / self.error), axis=0)
        first = len(p) * p[0] < LEVEL  # Holm's correction rejects something if it rejects the smallest p
        covered = np.abs(self.values) <= self.half(LEVEL)
        # a true difference moves the estimates: one of this size is found with the chance POWER
        detectable = np.quantile(self.half(LEVEL / len(p)) - self.values, POWER)
        return tuple(100 * float(x) for x in (covered.mean(), first.mean(), self.half(LEVEL).mean(), detectable))
