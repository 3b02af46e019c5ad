"""The sentence that a report gives for a difference."""

from __future__ import annotations

from dataclasses import dataclass

from smoa_lightning.ablation.statistics.differences import Difference
from smoa_lightning.ablation.statistics.intervals import checked

ESTABLISHED = "established"
EQUIVALENT = "equivalent within the margin"
MINIMUM_SEEDS = 3  # that a verdict needs: the interval of two seeds may cover only 90 %
NOT_ESTABLISHED = "not established"


@dataclass(frozen=True)
class Verdict:
    """Whether a difference is established.

    Args:
        established: Whether the difference is established.
        better: Whether the cell's mean is the better one; None for equal means.
        sentence: Everything that a reader needs to judge the difference.
        within: Whether the difference is established to be smaller than the margin; False without a margin.
    """

    established: bool
    better: bool | None
    sentence: str
    within: bool = False

    @property
    def outcome(self) -> str:
        """``better``, ``worse``, ``equivalent within the margin`` or ``not established``."""
        if self.established:
            return "better" if self.better else "worse"
        return EQUIVALENT if self.within else NOT_ESTABLISHED


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
    digits: int = 2,
    minimum_seeds: int = MINIMUM_SEEDS,
    margin: float | None = None,
    joint: Difference | None = None,
) -> Verdict:
    r"""Return the verdict on a difference: established if there are enough seeds and the adjusted p is below ``alpha``.

    With a margin :math:`\Delta`, a difference is equivalent if its joint interval lies within
    :math:`(-\Delta, \Delta)`. These are two one-sided tests (TOST: Schuirmann 1987, Journal of Pharmacokinetics and
    Biopharmaceutics 15, 657), each at half of the interval's level. The usual 90 % interval would not
    suit, since the same interval also decides "better" and "worse". A difference that is established and within the
    margin is "better" or "worse", and the sentence says by less than the margin.

    Args:
        cell: Name of the cell.
        baseline: Name of the baseline.
        difference: The cell minus the baseline, with the corrected interval (``corrected``) if p is adjusted.
        adjusted_p: p-value after the correction for all comparisons of the table (``holm``); None if not tested.
        alpha: Level of the family.
        higher_is_better: Direction of the metric.
        scale: Factor to the unit: 100 turns accuracies into points.
        unit: Unit of the scaled difference; empty for none.
        digits: Decimals of the scaled difference.
        minimum_seeds: Number of seeds that a verdict needs. The interval of two seeds may cover only 90 %.
        margin: Largest difference that does not matter, in the unit of ``difference``; None for no test of equivalence.
        joint: The difference with the interval that holds for the whole table (``corrected``), which is compared with
            the margin; None for that of ``difference``.

    >>> found = Difference(0.023, 0.004, 0.042, 0.009, 0.008, 6.0, 5, None, "seeds")
    >>> verdict("A", "B", found, 0.018).sentence
    'A is better than B by 2.30 points, 95 % interval [0.40, 4.20], adjusted p = 0.018, 5 seeds: established.'
    """
    checked(alpha, "the level")
    enough = difference.n_seeds >= minimum_seeds
    established = enough and adjusted_p is not None and adjusted_p < alpha
    inside = margin is not None and _is_inside(joint or difference, margin)
    within = enough and inside
    better = None if difference.value == 0 else (difference.value > 0) == higher_is_better
    word = f" {unit}" if unit else ""
    bound, by = (f"{scale * size:.{digits}f}{word}" for size in (margin or 0, abs(difference.value)))
    start = _start(cell, baseline, by, established, better, within)
    start += f", by less than the margin of {bound}" if within and established else ""
    start += f" of {bound}" if within and not established else ""
    parts = [
        start,
        _interval(difference, scale, alpha, digits),
        _p_value(adjusted_p),
        counted(difference.n_seeds, "seed"),
    ]
    if difference.n_items is not None:
        groups = "" if difference.n_groups is None else f" in {counted(difference.n_groups, 'group')}"
        parts.append(counted(difference.n_items, "item") + groups)
    ending = ESTABLISHED if established else EQUIVALENT if within else NOT_ESTABLISHED
    ending += "" if enough else f", since at least {minimum_seeds} seeds are needed"
    return Verdict(established, better, f"{', '.join(parts)}: {ending}.", within)


def _start(cell: str, baseline: str, by: str, established: bool, better: bool | None, within: bool) -> str:
    """Return the beginning of the sentence; of an equivalence without the margin."""
    if established:
        return f"{cell} is {'better' if better else 'worse'} than {baseline} by {by}"
    if within:
        mean = "its mean is the same" if better is None else f"its mean is {by} {'better' if better else 'worse'}"
        return f"{cell} is equivalent to {baseline} ({mean}) within the margin"
    if better is None:
        return f"{cell} scores the same as {baseline}"
    return f"{cell} is not shown to differ from {baseline}: its mean is {by} {'better' if better else 'worse'}"


def _is_inside(difference: Difference, margin: float) -> bool:
    """Whether the interval of a difference lies within the margin."""
    if difference.low is None or difference.high is None:
        return False
    return -margin < difference.low and difference.high < margin


def _interval(difference: Difference, scale: float, alpha: float, digits: int) -> str:
    if difference.low is None or difference.high is None:
        return "no interval"
    ends = f"[{difference.low * scale:.{digits}f}, {difference.high * scale:.{digits}f}]"
    if difference.confidence > 1 - alpha + 1e-9:
        return f"corrected {100 * (1 - alpha):g} % interval {ends}"
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


def as_sentence(text: str) -> str:
    """Return a text that begins with a capital and ends with a full stop.

    >>> as_sentence("sizes differ")
    'Sizes differ.'
    """
    return f"{text[0].upper()}{text[1:]}."


def p_text(p: float | None) -> str:
    """Return a p-value with three digits.

    >>> p_text(0.0004), p_text(0.02), p_text(None)
    ('< 0.001', '0.020', '')
    """
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
