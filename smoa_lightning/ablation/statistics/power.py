r"""The power of a planned study: which differences its seeds and items can establish.

The model is that of ``differences``: a difference of two cells has variances :math:`\sigma_S^2` over seeds,
:math:`\sigma_I^2` over items, and :math:`\sigma_E^2` of both together. With n seeds and m items

.. math:: \bar d \sim N(\delta, V), \qquad V = \sigma_S^2/n + \sigma_I^2/m + \sigma_E^2/(nm)

and the mean squares are independent of :math:`\bar d`. S is :math:`(m \sigma_S^2 + \sigma_E^2)\,\chi^2_f / f` with the
degrees of freedom f of ``seed_variance``, or n - 1 where Bartlett's test rejects by chance. I is
:math:`(n \sigma_I^2 + \sigma_E^2)\,\chi^2_{m-1}/(m-1)`. E is :math:`\sigma_E^2\,\chi^2_k/k` with k = (n-1)(m-1). The
power is the mean, over draws of these three, of the chance that :math:`|\bar d|` exceeds the half width of
``crossed_difference``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from smoa_lightning.ablation.statistics.differences import MeanSquares, crossed_error
from smoa_lightning.ablation.statistics.intervals import checked
from smoa_lightning.ablation.statistics.seed_variance import PRIOR_DF, UNEQUAL
from smoa_lightning.common.errors import UserError

DRAWS = 2000  # of the mean squares; the power is averaged over them
# Share of the items' own effect in the variance of a difference over items; the rest changes with the seed. Measured on
# a small pretrained model and a choice task: .08 to .27.
ITEM_SHARE = 0.25
MOST_SEEDS, MOST_ITEMS = 50, 1_000_000  # that are searched


@dataclass(frozen=True)
class Variances:
    """The variances of the difference of two cells with the same seed, on the scale of the metric.

    Args:
        seeds: σ_S², of the seed.
        items: σ_I², of the item.
        residual: σ_E², of seed and item together.
    """

    seeds: float
    items: float
    residual: float

    def of_mean(self, n: int, m: int) -> float:
        """Return the variance of the mean over n seeds and m items."""
        return self.seeds / n + self.items / m + self.residual / (n * m)


@dataclass(frozen=True)
class PlannedTest:
    """How a difference of the plan will be tested.

    Args:
        comparisons: Comparisons c of the table. The level is Bonferroni's α/c; Holm's correction rejects at least as
            often.
        cells: Cells that share a seed variance.
        power: Chance to establish a true difference.
        alpha: Level of the family.
    """

    comparisons: int = 1
    cells: int = 2
    power: float = 0.8
    alpha: float = 0.05

    def __post_init__(self) -> None:
        checked(self.alpha, "the level")
        if checked(self.power, "the power") <= self.alpha:
            raise UserError(f"the power is {self.power}, but must be above the level {self.alpha}; 0.8 is usual")
        _at_least(self.comparisons, 1, "comparisons")
        _at_least(self.cells, 2, "cells")

    @property
    def level(self) -> float:
        """Level of a single comparison."""
        return self.alpha / self.comparisons


def variances_of(pairs: Sequence[tuple[MeanSquares, int, int]]) -> Variances:
    """Return the variances of a difference, estimated from pairs of cells that have run.

    Args:
        pairs: Mean squares of the differences of a pair (``mean_squares``), with its numbers of seeds and items.

    Raises:
        UserError: There is no pair.
    """
    if not pairs:
        raise UserError("variances need at least one pair of cells with two seeds and two items")
    found = [
        ((float(s) - float(e)) / m, (float(i) - float(e)) / n, float(e)) for (s, i, e), n, m in pairs
    ]  # without a bias; negative values only in the mean become 0
    seeds, items, residual = np.mean(found, axis=0)
    return Variances(max(float(seeds), 0.0), max(float(items), 0.0), float(residual))


def assumed_variances(
    n_items: int,
    accuracy: float,
    seed_sd: float,
    item_correlation: float,
    *,
    seed_correlation: float = 0.0,
    item_share: float = ITEM_SHARE,
) -> Variances:
    r"""Return the variances of the difference of two accuracies before there are runs.

    .. math:: \sigma_I^2 + \sigma_E^2 = 2 p (1 - p)(1 - \rho), \qquad
        \sigma_S^2 + \sigma_E^2/m = 2 s^2 (1 - \rho_S)

    Args:
        n_items: Items m on which ``seed_sd`` is measured.
        accuracy: Expected accuracy p.
        seed_sd: Standard deviation s of a cell's accuracy over seeds, on these items.
        item_correlation: Correlation ρ of right and wrong answers between two cells' runs with the same seed.
        seed_correlation: Correlation ρ_S of two cells' accuracies over seeds.
        item_share: Share of σ_I² in σ_I² + σ_E².

    Raises:
        UserError: A number is out of its range.
    """
    checked(accuracy, "the accuracy")
    for name, rho in {"items": item_correlation, "seeds": seed_correlation}.items():
        if not -1 <= rho <= 1:
            raise UserError(f"the correlation over {name} is {rho}, but must be in [-1, 1]")
    if not 0 <= seed_sd < 1:
        raise UserError(f"the standard deviation over seeds is {seed_sd}, but must be in [0, 1); one point is 0.01")
    over_items = 2 * accuracy * (1 - accuracy) * (1 - item_correlation)
    residual = (1 - item_share) * over_items
    seeds = max(0.0, 2 * seed_sd**2 * (1 - seed_correlation) - residual / _at_least(n_items, 2, "items"))
    return Variances(seeds, item_share * over_items, residual)


def power_of(difference: float, n_seeds: int, n_items: int, variances: Variances, test: PlannedTest) -> float:
    """Return the chance to establish a true difference (model: see the module); 0 with one seed.

    Args:
        difference: The true difference.
        n_seeds: Seeds n.
        n_items: Items m.
        variances: Variances of the difference.
        test: How it will be tested.
    """
    if n_seeds < 2:
        return 0.0
    half = _half_widths(n_seeds, n_items, variances, test)
    return _chance(difference, half, math.sqrt(variances.of_mean(n_seeds, n_items)))


def detectable_difference(n_seeds: int, n_items: int, variances: Variances, test: PlannedTest) -> float | None:
    """Return the smallest true difference that is established with the power of the test; None with one seed.

    Without item variance this is the noncentral t-test.

    Args:
        n_seeds: Seeds n.
        n_items: Items m.
        variances: Variances of the difference.
        test: How it will be tested.

    Raises:
        UserError: There are no seeds, fewer than two items, or no variance.
    """
    _at_least(n_seeds, 1, "seeds")
    error = math.sqrt(variances.of_mean(n_seeds, _at_least(n_items, 2, "items")))
    if error == 0:
        raise UserError("seeds and items do not vary: give a standard deviation over seeds above 0, for example 0.01")
    if n_seeds == 1:
        return None
    half = _half_widths(n_seeds, n_items, variances, test)
    low, high = 0.0, float(half.max()) + 10 * error
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(middle, half, error) < test.power else (low, middle)
    return (low + high) / 2


def seeds_to_detect(difference: float, n_items: int, variances: Variances, test: PlannedTest, least: int) -> int | None:
    """Return the fewest seeds, at least ``least``, that detect a difference; None if ``MOST_SEEDS`` do not."""
    for n in range(least, MOST_SEEDS + 1):
        if power_of(difference, n, n_items, variances, test) >= test.power:
            return n
    return None


def items_to_detect(difference: float, n_seeds: int, variances: Variances, test: PlannedTest) -> int | None:
    """Return the fewest items that detect a difference, within 2 %; None if ``MOST_ITEMS`` do not."""
    low, high = 2, MOST_ITEMS
    if power_of(difference, n_seeds, high, variances, test) < test.power:
        return None
    while high > 1.02 * low + 1:
        middle = max(low + 1, int(math.sqrt(low * high)))  # else 44 is between 44 and 46 for ever
        enough = power_of(difference, n_seeds, middle, variances, test) >= test.power
        low, high = (low, middle) if enough else (middle, high)
    return high


def _half_widths(n: int, m: int, variances: Variances, test: PlannedTest) -> NDArray[np.float64]:
    """Return the half widths of the interval for draws of the mean squares."""
    rng = np.random.default_rng(0)
    seeds_df = np.full(DRAWS, float(min(PRIOR_DF + n - 1, (test.cells - 1) * (n - 1))))
    if test.cells > 2:
        seeds_df[: int(UNEQUAL * DRAWS)] = n - 1  # Bartlett's test rejects equal variances by chance
    tails = (rng.permutation(DRAWS) + 0.5) / DRAWS
    chance = special.chdtri(seeds_df, tails) / seeds_df
    by_items, rest = (rng.chisquare(df, DRAWS) / df for df in (m - 1, (n - 1) * (m - 1)))
    squares = MeanSquares(
        (m * variances.seeds + variances.residual) * chance,
        (n * variances.items + variances.residual) * by_items,
        variances.residual * rest,
    )
    error, df = crossed_error(squares, seeds_df, n, m)
    half: NDArray[np.float64] = special.stdtrit(df, 1 - test.level / 2) * error
    return half


def _chance(difference: float, half: NDArray[np.float64], error: float) -> float:
    with np.errstate(divide="ignore"):
        chance = special.ndtr((difference - half) / error) + special.ndtr((-difference - half) / error)
    return float(chance.mean())


def _at_least(number: int, least: int, what: str) -> int:
    if number < least:
        raise UserError(f"the plan has {number} {what}, but needs at least {least}")
    return number
