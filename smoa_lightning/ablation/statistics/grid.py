r"""Effects of the axes of a grid of cells: main effects and two-way interactions.

The model is least squares with fixed effects, and the seed is a block:

.. math:: y = \mu + \text{seed} + \sum_a \alpha_a + \sum_{a<b} (\alpha\beta)_{ab} + \varepsilon

Each term is tested against the model of all terms that do not contain it. The denominator is the residual of the full
model. This is the principle of marginality, "type II" (Nelder 1977, Journal of the Royal Statistical Society A 140, 48;
Langsrud 2003, Statistics and Computing 13, 163). With equal numbers of runs in all cells it is the classical analysis
of variance. If a condition drops cells, the design may lose rank. Degrees of freedom come from the ranks of the nested
designs and sums of squares from their residuals, so both are independent of the coding. Each term is reported as
estimable in full, in part, or not at all.

The F-tests are over seeds: their results hold for new seeds on the same items.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from smoa_lightning.ablation.statistics.intervals import ROUNDING, finite, student
from smoa_lightning.common.errors import UserError


@dataclass(frozen=True)
class Term:
    """A main effect or an interaction.

    Args:
        axes: The axis, or the two axes.
        df: Degrees of freedom that the runs can separate from all other terms.
        full_df: Degrees of freedom of the term in a complete grid.
        sum_of_squares: Variation that the term explains in addition to the terms that do not contain it.
        f: F statistic, None without a residual to test against.
        p: p-value of ``f``.
        partial_eta_squared: Sum of squares divided by the sum of itself and the residual's; None if ``f`` is None.
    """

    axes: tuple[str, ...]
    df: int
    full_df: int
    sum_of_squares: float
    f: float | None
    p: float | None
    partial_eta_squared: float | None

    @property
    def name(self) -> str:
        """``partition`` or ``partition x r``."""
        return " x ".join(self.axes)

    @property
    def estimable(self) -> str:
        """``yes``, ``in part`` (only some contrasts) or ``no``."""
        return "no" if self.df == 0 else "yes" if self.df == self.full_df else "in part"


@dataclass(frozen=True)
class LevelEffect:
    """The difference of a level from the first level of its axis, with other axes and seeds fixed (no interactions).

    Args:
        axis: The axis.
        level: The level.
        against: The first level of the axis.
        value: The difference, None if the runs cannot separate it from other effects.
        low: Lower end of the interval, None without an interval.
        high: Upper end of the interval, None without an interval.
    """

    axis: str
    level: Hashable
    against: Hashable
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class GridEffects:
    """Effects of the axes of a grid.

    Args:
        terms: Main effects, then interactions.
        levels: Differences of the levels of each axis from its first level.
        residual_df: Degrees of freedom of the residual.
        residual_variance: Mean square of the residual, None without degrees of freedom.
    """

    terms: tuple[Term, ...]
    levels: tuple[LevelEffect, ...]
    residual_df: int
    residual_variance: float | None


def grid_effects(
    scores: ArrayLike,
    axes: Mapping[str, Sequence[Hashable]],
    seeds: Sequence[Hashable],
    *,
    interactions: bool = True,
    confidence: float = 0.95,
) -> GridEffects:
    """Return main effects and two-way interactions of a grid of runs (equation and sources: see the module).

    An axis with one level is left out. Interactions of three axes are part of the residual.

    Args:
        scores: (N,), the score of each run.
        axes: Axis -> its level in each of the N runs. The first level that occurs is the reference of its axis.
        seeds: The seed of each run, a block.
        interactions: Include the two-way interactions.
        confidence: Nominal coverage of the levels' intervals.

    Raises:
        UserError: The lengths differ, a score is not a finite number, or no axis has two levels.
    """
    y = finite(scores, "the scores of the runs", 1)
    for name, labels in {**axes, "seeds": seeds}.items():
        if len(labels) != len(y):
            raise UserError(f"{name} has {len(labels)} entries for {len(y)} runs: give one for each run")
    varied = {name: list(levels) for name, levels in axes.items() if len(set(levels)) > 1}
    if not varied:
        raise UserError(
            f"no axis has two levels in the runs ({', '.join(axes) or 'no axis given'}), so there is nothing to compare"
        )
    columns: dict[tuple[str, ...], NDArray[np.float64]] = {(name,): _indicators(v) for name, v in varied.items()}
    if interactions:
        for first, second in itertools.combinations(varied, 2):
            columns[first, second] = _indicators(list(zip(varied[first], varied[second], strict=True)))
    start = np.hstack([np.ones((len(y), 1)), _indicators(list(seeds))])
    centred = y - y.mean()  # changes no effect, and avoids cancellation in the sums of squares
    whole = _fit(centred, [start, *columns.values()])
    residual_df = len(y) - whole.rank
    noise = (ROUNDING * float(np.abs(y).max())) ** 2 * len(y)
    variance = whole.rss / residual_df if residual_df and whole.rss > noise else None
    terms = tuple(_term(axes_, columns, start, centred, varied, (variance, residual_df)) for axes_ in columns)
    mains = np.hstack([start, *(columns[(name,)] for name in varied)])
    return GridEffects(
        terms=terms,
        levels=_level_effects(mains, centred, varied, start.shape[1], (variance, residual_df), confidence),
        residual_df=residual_df,
        residual_variance=variance,
    )


@dataclass(frozen=True)
class _Fit:
    rss: float
    rank: int


def _fit(y: NDArray[np.float64], blocks: list[NDArray[np.float64]]) -> _Fit:
    design = np.hstack(blocks)
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    return _Fit(float(((y - design @ solution) ** 2).sum()), int(rank))


def _term(
    own: tuple[str, ...],
    columns: Mapping[tuple[str, ...], NDArray[np.float64]],
    start: NDArray[np.float64],
    y: NDArray[np.float64],
    varied: Mapping[str, list[Hashable]],
    residual: tuple[float | None, int],
) -> Term:
    others = [block for name, block in columns.items() if not set(own) <= set(name)]
    without, with_it = _fit(y, [start, *others]), _fit(y, [start, *others, columns[own]])
    df, explained = with_it.rank - without.rank, max(0.0, without.rss - with_it.rss)
    full_df = math.prod(len(set(varied[name])) - 1 for name in own)
    variance, residual_df = residual
    if df == 0 or variance is None:
        return Term(own, df, full_df, explained if df else 0.0, None, None, None)
    f = explained / df / variance
    p = float(special.fdtrc(df, residual_df, f))
    return Term(own, df, full_df, explained, f, p, explained / (explained + variance * residual_df))


def _level_effects(
    design: NDArray[np.float64],
    y: NDArray[np.float64],
    varied: Mapping[str, list[Hashable]],
    offset: int,
    residual: tuple[float | None, int],
    confidence: float,
) -> tuple[LevelEffect, ...]:
    inverse = np.linalg.pinv(design)
    space = inverse @ design  # projects on the estimable contrasts
    variance, residual_df = residual
    effects = []
    for axis, labels in varied.items():
        levels = list(dict.fromkeys(labels))
        for number, level in enumerate(levels[1:], start=1):
            contrast = np.zeros(design.shape[1])
            contrast[[offset, offset + number]] = -1, 1
            weights = contrast @ inverse
            if not np.allclose(contrast @ space, contrast, atol=1e-8):
                effects.append(LevelEffect(axis, level, levels[0], None, None, None))
                continue
            value = float(weights @ y)
            if variance is None:
                effects.append(LevelEffect(axis, level, levels[0], value, None, None))
                continue
            half = student(confidence, residual_df) * math.sqrt(variance * float(weights @ weights))
            effects.append(LevelEffect(axis, level, levels[0], value, value - half, value + half))
        offset += len(levels)
    return tuple(effects)


def _indicators(labels: Sequence[Hashable]) -> NDArray[np.float64]:
    """Return (N, levels): one column for each level, in order of first appearance."""
    number = {label: column for column, label in enumerate(dict.fromkeys(labels))}
    return np.eye(len(number))[[number[label] for label in labels]]
