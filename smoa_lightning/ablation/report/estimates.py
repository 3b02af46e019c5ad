"""Texts of estimates: the interval in brackets, or the reason why there is none.

The sign ± is a standard error everywhere in this package. A 95 % interval is always in brackets.
"""

from __future__ import annotations

from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.statistics import Difference, Estimate

ONE_SEED, EQUAL = "no interval: one seed", "no interval: all seeds have the same score"
NO_RUN = "no finished run"


def no_interval(cell: CellResult) -> str:
    """Return why the mean of a cell has no interval; empty if it has one."""
    mean = cell.estimate
    if mean is None:
        return NO_RUN
    if mean.low is not None:
        return ""
    return ONE_SEED if mean.n == 1 else EQUAL


def no_difference_interval(difference: Difference) -> str:
    """Return why a difference has no interval; empty if it has one."""
    if difference.low is not None:
        return ""
    return ONE_SEED if difference.n_seeds == 1 else "no interval: the difference is the same for all seeds"


def estimate_text(estimate: Estimate | None) -> str:
    """Return a mean with its interval.

    >>> estimate_text(Estimate(0.61, 0.585, 0.635, 3, 0.01))
    '0.610 [0.585, 0.635]'
    """
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} {interval_text(estimate.low, estimate.high)}"


def interval_text(low: float, high: float, digits: int = 3) -> str:
    """Return an interval in brackets.

    >>> interval_text(0.585, 0.635)
    '[0.585, 0.635]'
    """
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
