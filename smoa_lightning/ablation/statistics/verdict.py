"""The sentence that a report gives for a difference."""

from __future__ import annotations

from dataclasses import dataclass

from smoa_lightning.ablation.statistics.differences import Difference
from smoa_lightning.ablation.statistics.intervals import checked

ESTABLISHED = "established"
MINIMUM_SEEDS = 3  # that a verdict needs: the interval of two seeds may cover only 90 %
NOT_ESTABLISHED = "not established"


@dataclass(frozen=True)
class Verdict:
    """Whether a difference is established.

    Args:
        established: Whether the difference is established.
        better: Whether the cell's mean is the better one; None for equal means.
        sentence: Everything that a reader needs to judge the difference.
    """

    established: bool
    better: bool | None
    sentence: str

    @property
    def label(self) -> str:
        """``established`` or ``not established``."""
        return ESTABLISHED if self.established else NOT_ESTABLISHED


def verdict(
    cell: str,
    baseline: str,
    difference: Difference,
    adjusted_p: float | None,
    *,
    alpha: float = 0.05,
    higher_is_better: bool = True,
    scale: float = 100.0,
    unit: str = "points",
    minimum_seeds: int = MINIMUM_SEEDS,
) -> Verdict:
    """Return the verdict on a difference: established if there are enough seeds and the adjusted p is below ``alpha``.

    Args:
        cell: Name of the cell.
        baseline: Name of the baseline.
        difference: The cell minus the baseline.
        adjusted_p: p-value after the correction for all comparisons of the table (``holm``); None if not tested.
        alpha: Level of the family.
        higher_is_better: Direction of the metric.
        scale: Factor to the unit: 100 turns accuracies into points.
        unit: Unit of the scaled difference; empty for none.
        minimum_seeds: Number of seeds that a verdict needs. The interval of two seeds may cover only 90 %.

    >>> found = Difference(0.023, 0.004, 0.042, 0.009, 0.008, 6.0, 5, None, "seeds")
    >>> verdict("A", "B", found, 0.018).sentence
    'A is better than B by 2.30 points, 95 % interval [0.40, 4.20], adjusted p = 0.018, 5 seeds: established.'
    """
    checked(alpha, "the level")
    enough = difference.n_seeds >= minimum_seeds
    established = enough and adjusted_p is not None and adjusted_p < alpha
    better = None if difference.value == 0 else (difference.value > 0) == higher_is_better
    size = f"{abs(difference.value) * scale:.2f}" + (f" {unit}" if unit else "")
    if better is None:
        start = f"{cell} scores the same as {baseline}"
    elif established:
        start = f"{cell} is {'better' if better else 'worse'} than {baseline} by {size}"
    else:
        start = f"{cell} is not shown to differ from {baseline}: its mean is {size} {'better' if better else 'worse'}"
    parts = [start, _interval(difference, scale), _p_value(adjusted_p), counted(difference.n_seeds, "seed")]
    if difference.n_items is not None:
        parts.append(counted(difference.n_items, "item"))
    ending = ESTABLISHED if established else NOT_ESTABLISHED
    ending += "" if enough else f", since at least {minimum_seeds} seeds are needed"
    return Verdict(established, better, f"{', '.join(parts)}: {ending}.")


def _interval(difference: Difference, scale: float) -> str:
    if difference.low is None or difference.high is None:
        return "no interval"
    ends = f"[{difference.low * scale:.2f}, {difference.high * scale:.2f}]"
    return f"{100 * difference.confidence:g} % interval {ends}"


def _p_value(p: float | None) -> str:
    if p is None:
        return "not tested"
    return "adjusted p < 0.001" if p < 0.001 else f"adjusted p = {p:.3f}"


def counted(number: int, what: str) -> str:
    """Return a number with the noun that it counts.

    >>> counted(1, "seed"), counted(1200, "item")
    ('1 seed', '1,200 items')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def p_text(p: float | None) -> str:
    """Return a p-value with three digits.

    >>> p_text(0.0004), p_text(0.02), p_text(None)
    ('< 0.001', '0.020', '')
    """
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
