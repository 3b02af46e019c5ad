"""The interquartile mean over several tasks and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from smoa_lightning.ablation.statistics.intervals import ROUNDING, Estimate, checked, finite, student
from smoa_lightning.common.errors import UserError

CHUNK = 4_000_000  # resampled scores in memory at once: 32 MB


def interquartile_mean(
    tasks: Sequence[ArrayLike], confidence: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Estimate:
    r"""Return the mean of the middle half of all scores, with a stratified bootstrap interval.

    All N scores of all tasks are sorted, a quarter (:math:`\lfloor N/4 \rfloor`) is cut at each end, and the rest is
    averaged. One task or seed moves this mean less than the plain mean, and it uses more of the scores than the median
    (Agarwal et al. 2021, arXiv 2108.13264). Each resample draws the seeds of each task (a stratum) with replacement.
    Percentiles of few seeds are too narrow for two reasons. The variance of a resampled mean is too small by the factor
    (n - 1)/n, and the tails are those of a normal distribution. Both are corrected, as in Hesterberg 2015 (The American
    Statistician 69, 371) for one sample. With a percentile :math:`q` and k tasks, an end of the interval is

    .. math:: \hat\theta + f (q - \hat\theta), \qquad
        f = \sqrt{\tfrac{\bar n}{\bar n - 1}}\; t_{N - k} / z, \qquad \bar n = N/k

    Scores must be comparable: all accuracies, or normalised. The interval holds for new seeds on *the same* tasks and
    items.

    Args:
        tasks: The scores of the seeds of each task; (k, n), or different lengths.
        confidence: Nominal coverage.
        resamples: Number of resamples.
        seed: Seed of the generator.

    Raises:
        UserError: There is no task, or a score is not a finite number.
    """
    strata = [finite(scores, f"the scores of task {number}", 1) for number, scores in enumerate(tasks)]
    if not strata:
        raise UserError("there is no task: an interquartile mean needs the scores of at least one task")
    checked(confidence, "the confidence")
    if resamples < 100:
        raise UserError(
            f"{resamples} resamples are too few to estimate an interval: use at least 100; the default is 4000"
        )
    pooled = np.concatenate(strata)
    count, df = len(pooled), len(pooled) - len(strata)
    value = float(middle_mean(pooled))
    within = math.sqrt(sum(float(((s - s.mean()) ** 2).sum()) for s in strata) / df) if df else None
    if within is None or min(map(len, strata)) < 2 or within <= ROUNDING * np.abs(pooled).max():
        return Estimate(value, None, None, count, within, confidence)
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // count)
    drawn = [_resampled(strata, rng, min(step, resamples - done)) for done in range(0, resamples, step)]
    tail = (1 - confidence) / 2
    ends = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    factor = math.sqrt(count / df) * student(confidence, df) / float(special.ndtri(1 - tail))
    low, high = (value + factor * (float(end) - value) for end in ends)
    return Estimate(value, low, high, count, within, confidence)


def middle_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the interquartile mean over the last axis, without weights at the borders (as in rliable)."""
    count = scores.shape[-1]
    cut = count // 4
    middle: NDArray[np.float64] = np.sort(scores, axis=-1)[..., cut : count - cut].mean(axis=-1)
    return middle


def _resampled(strata: list[NDArray[np.float64]], rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    drawn = [stratum[rng.integers(len(stratum), size=(count, len(stratum)))] for stratum in strata]
    return middle_mean(np.concatenate(drawn, axis=1))
