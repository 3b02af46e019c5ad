"""Errors and power of families of comparisons, with one baseline or with the base model, without a true difference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from smoa_lightning.ablation.statistics import (
    MeanSquares,
    Pooled,
    mean_squares,
    pooled_for_differences,
    pooled_for_gains,
    seed_variance,
    standard_error,
)

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
        return _numbers(self.values, self.error, self.df)


def gain_errors(
    rng: np.random.Generator, n: int, cells: int, correlation: float, noisy: float, repeats: int = 20_000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the numbers of gains over a base model, with the cells' own seed variances and with the pooled one.

    The effects are normal, with 300 items: 0.001 over seeds, 0.05 over items, 0.1 of both. The seed effects of two
    cells correlate; those of the first cell are ``noisy`` times as large.
    """
    m, by_seed, by_item, rest = 300, 0.001, 0.05, 0.1
    size = np.sqrt(by_seed) * np.where(np.arange(cells) == 0, noisy, 1.0)[:, None]
    shared, own = rng.standard_normal((repeats, 1, n)), rng.standard_normal((repeats, cells, n))
    scores = size * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)
    scores += np.sqrt(rest / m) * rng.standard_normal(scores.shape)
    scores += np.sqrt(by_item / m) * rng.standard_normal((repeats, cells, 1))
    squares = MeanSquares(
        m * scores.var(axis=-1, ddof=1),
        (n * by_item + rest) * rng.chisquare(m - 1, (repeats, cells)) / (m - 1),
        rest * rng.chisquare((n - 1) * (m - 1), (repeats, cells)) / ((n - 1) * (m - 1)),
    )
    found = pooled_for_gains(scores)
    pooled = Pooled(*(part[:, None] for part in (found.variance, found.df, found.bartlett)), cells)
    values, tests = scores.mean(axis=-1).T, (standard_error(squares, n, m, each) for each in (None, pooled))
    first, second = (_numbers(values, error.T, df.T) for error, df in tests)
    return first, second


def _numbers(values: NDArray[np.float64], error: NDArray[np.float64], df: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the numbers of a family, (comparisons, repeats)."""
    p = np.sort(2 * special.stdtr(df, -np.abs(values) / error), axis=0)
    first = len(p) * p[0] < LEVEL  # Holm's correction rejects something if it rejects the smallest p
    half = special.stdtrit(df, 1 - LEVEL / 2) * error
    # a true difference moves the estimates: one of this size is found with the chance POWER
    detectable = np.quantile(special.stdtrit(df, 1 - LEVEL / len(p) / 2) * error - values, POWER)
    return tuple(100 * float(x) for x in ((np.abs(values) <= half).mean(), first.mean(), half.mean(), detectable))
