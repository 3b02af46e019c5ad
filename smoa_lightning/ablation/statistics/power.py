"""The smallest difference that the seeds and items of a planned study can establish."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from smoa_lightning.ablation.statistics.differences import MeanSquares, standard_error
from smoa_lightning.ablation.statistics.intervals import checked
from smoa_lightning.common.errors import UserError

QUANTILES = 2000  # of the seeds' mean square; the power is averaged over them


@dataclass(frozen=True)
class Detectable:
    """The smallest difference that a plan can detect.

    Args:
        difference: Smallest true difference of two cells that is established with the given power; None for one seed,
            which establishes nothing.
        standard_error: Standard error of a difference, over seeds and items.
        share_of_items: Share of the items in the squared standard error: near 1 more items help, near 0 more seeds.
        alpha: Level of a single comparison.
        power: Chance to establish ``difference``.
    """

    difference: float | None
    standard_error: float
    share_of_items: float
    alpha: float
    power: float


def detectable_difference(
    n_seeds: int,
    n_items: int,
    accuracy: float,
    seed_sd: float,
    item_correlation: float,
    *,
    comparisons: int = 1,
    power: float = 0.8,
    alpha: float = 0.05,
    seed_correlation: float = 0.0,
) -> Detectable:
    r"""Return the minimum detectable difference of two accuracies by ``crossed_difference``.

    With n seeds, m items, accuracy p, standard deviation s over seeds, correlation :math:`\rho` between two cells'
    answers to an item, and correlation :math:`\rho_S` between two cells' scores with the same seed,

    .. math:: V = V_S + V_I = \frac{2 s^2 (1 - \rho_S)}{n} + \frac{2 p (1 - p)(1 - \rho)}{m}, \qquad
        \delta \approx (t_{1 - \alpha/2c,\,\nu} + t_{\text{power},\,\nu}) \sqrt V

    (Bloom 1995, Evaluation Review 19, 547; the paired variance of items: Miller 2024, arXiv 2411.00640). For three
    seeds the approximation is too rough. So :math:`\delta` is solved from the exact power, averaged over the
    distribution :math:`V_S\,\chi^2_{n-1}/(n-1)` of the estimated variance over seeds. Without item variance this is the
    noncentral t-test. Bonferroni's level :math:`\alpha / c` is used in place of Holm's correction, which rejects at
    least as often. :math:`V_I` assumes that an item's paired difference is the same for all seeds, which is cautious.

    Args:
        n_seeds: Seeds n.
        n_items: Items m.
        accuracy: Expected accuracy p.
        seed_sd: Standard deviation s of a cell's accuracy over seeds, on these items.
        item_correlation: Correlation of right and wrong answers between two cells' runs, over the items.
        comparisons: Comparisons c of the table.
        power: Chance to establish a true difference of this size.
        alpha: Level of the family.
        seed_correlation: Correlation of two cells' accuracies over seeds.

    Raises:
        UserError: A number is out of its range, or there is no variance.
    """
    _check_variation(accuracy, seed_sd, {"items": item_correlation, "seeds": seed_correlation})
    level = checked(alpha, "the level") / _at_least(comparisons, 1, "comparisons")
    if checked(power, "the power") <= alpha:
        raise UserError(f"the power is {power}, but must be above the level {alpha}; 0.8 is usual")
    _at_least(n_seeds, 1, "seeds")
    _at_least(n_items, 2, "items")
    by_seeds = 2 * seed_sd**2 * (1 - seed_correlation) / n_seeds
    by_items = 2 * accuracy * (1 - accuracy) * (1 - item_correlation) / n_items
    variance = by_seeds + by_items
    if variance == 0:
        raise UserError("seeds and items do not vary: give a standard deviation over seeds above 0, for example 0.01")
    error, share = math.sqrt(variance), by_items / variance
    if n_seeds == 1:
        return Detectable(None, error, share, level, power)
    ends = _half_widths(by_seeds, by_items, n_seeds, n_items, level)
    return Detectable(_solved(ends, error, power), error, share, level, power)


def _check_variation(accuracy: float, seed_sd: float, correlations: Mapping[str, float]) -> None:
    """Refuse values that are impossible for accuracies."""
    checked(accuracy, "the accuracy")
    for name, rho in correlations.items():
        if not -1 <= rho <= 1:
            raise UserError(f"the correlation over {name} is {rho}, but must be in [-1, 1]")
    if not 0 <= seed_sd < 1:
        raise UserError(f"the standard deviation over seeds is {seed_sd}, but must be in [0, 1); one point is 0.01")


def _half_widths(by_seeds: float, by_items: float, n: int, m: int, level: float) -> NDArray[np.float64]:
    """Return the half widths of the interval for equally likely values of the seeds' mean square."""
    tails = (np.arange(QUANTILES) + 0.5) / QUANTILES
    chance = special.chdtri(n - 1, tails) / (n - 1)
    squares = MeanSquares(n * m * by_seeds * chance, np.full(QUANTILES, n * m * by_items), np.zeros(QUANTILES))
    error, df = standard_error(squares, n, m)
    half: NDArray[np.float64] = special.stdtrit(df, 1 - level / 2) * error
    return half


def _solved(half: NDArray[np.float64], error: float, power: float) -> float:
    """Return the true difference that is established with the chance ``power``."""
    low, high = 0.0, float(half.max()) + 10 * error
    for _ in range(60):
        middle = (low + high) / 2
        chance = special.ndtr((middle - half) / error) + special.ndtr((-middle - half) / error)
        low, high = (middle, high) if chance.mean() < power else (low, middle)
    return (low + high) / 2


def _at_least(number: int, least: int, what: str) -> int:
    if number < least:
        raise UserError(f"the plan has {number} {what}, but needs at least {least}")
    return number
