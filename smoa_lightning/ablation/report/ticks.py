"""Ticks of all axes in one style: plain numbers, without powers of ten or offsets, that do not touch each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

NARROW, WIDE = 3, 500  # largest over smallest value: below NARROW an axis is linear, above WIDE only powers of ten
MOST = 6  # ticks of a linear axis
SHORT = 10_000  # from this number on, an axis has labels such as 5k
SIZE = 9.5  # points of the labels
GAP = 0.06  # inches between two labels


def plain(value: float) -> str:
    """Return a round number as a label.

    >>> plain(2e-4), plain(0.5), plain(50000.0), plain(2e6), plain(0), plain(-0.25)
    ('0.0002', '0.5', '50k', '2M', '0', '-0.25')
    """
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.10f}".rstrip("0").rstrip(".") if abs(value) < 1 and value else f"{value:g}"


def tick_labels(places: Sequence[float], uniform: bool) -> list[str]:
    """Return the labels of an axis in one style: thousands as k from 10,000 on, and equal decimals if ``uniform``.

    >>> tick_labels([0.5, 0.55, 0.6], uniform=True), tick_labels([5000, 10000], uniform=True)
    (['0.50', '0.55', '0.60'], ['5k', '10k'])
    >>> tick_labels([800, 1200], uniform=True), tick_labels([0.01, 0.1], uniform=False)
    (['800', '1200'], ['0.01', '0.1'])
    """
    short = max(map(abs, places), default=0) >= SHORT
    texts = [plain(place) if short or abs(place) < 1000 else f"{place:.10g}" for place in places]
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [f"{place:.{decimals}f}" for place in places] if uniform and decimals and not short else texts


def scale(axis: Any, values: Sequence[float], ticks: Sequence[float] = (), logarithmic: bool | None = None) -> None:
    """Give an axis its scale and ticks.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        values: The drawn values.
        ticks: Values that get a label where there is space, instead of round numbers.
        logarithmic: Whether the scale is logarithmic; None: for positive values with a wide range.
    """
    low, high = min(values), max(values)
    wide = low > 0 and high >= NARROW * low
    position: Callable[[float], float]
    if wide if logarithmic is None else logarithmic and low > 0:
        margin = max(1.08, (high / low) ** 0.06)
        limits, position = (low / margin, high * margin), math.log10
        places = list(ticks) or log_ticks(*limits)
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    else:
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
        limits, position = (low - margin, high + margin), float
        places = list(ticks) or linear_ticks(*limits)
    getattr(axis.axes, f"set_{axis.axis_name}lim")(*limits)
    labels = tick_labels(places, uniform=not ticks and position is float)
    _set_ticks(axis, places, labels, [position(place) for place in places], tuple(map(position, limits)))


def _set_ticks(
    axis: Any, places: Sequence[float], labels: Sequence[str], at: Sequence[float], limits: Sequence[float]
) -> None:
    """Set ticks at all places, and labels at those where the labels do not touch.

    Args:
        axis: The axis.
        places: Values of the ticks, ascending.
        labels: Their labels.
        at: Their positions on the axis, in the unit of ``limits``.
        limits: Positions of the two ends of the axis.
    """
    horizontal = axis.axis_name == "x"
    side = axis.axes.get_position().width if horizontal else axis.axes.get_position().height
    inches = side * axis.axes.figure.get_size_inches()[0 if horizontal else 1]
    texts, end = [], -math.inf
    for label, position in zip(labels, at, strict=True):
        half = label_inches(label) / 2 if horizontal else SIZE / 72 / 2
        middle = (position - limits[0]) / (limits[1] - limits[0]) * inches
        fits = middle - half >= end + GAP
        texts.append(label if fits else "")
        end = middle + half if fits else end
    axis.set_ticks(list(places), texts)
    axis.set_ticks([], minor=True)


def label_inches(text: str, size: float = SIZE) -> float:
    """Return the width of a text, rounded up, without asking for its font (DejaVu Sans)."""
    share = sum(0.34 if c in "il.,:;|'/ " else 0.84 if c in "mwMW=+-<>_" else 0.64 if c < "a" else 0.6 for c in text)
    return share * size / 72


def log_ticks(low: float, high: float) -> list[float]:
    """Return the round numbers of a range: powers of ten; unless the range is wide, also 2 and 5 times these.

    >>> log_ticks(300, 4000), log_ticks(0.0008, 20)
    ([500.0, 1000.0, 2000.0], [0.001, 0.01, 0.1, 1.0, 10.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if high / low > WIDE else (1, 2, 5)
    places = [float(f"{step}e{power}") for power in powers for step in steps]
    return [place for place in places if low <= place <= high]


def linear_ticks(low: float, high: float, most: int = MOST) -> list[float]:
    """Return round numbers of a range with equal distances of 1, 2 or 5 times a power of ten.

    >>> linear_ticks(0.531, 0.578), linear_ticks(-3.2, 1.1), linear_ticks(900, 1012)
    ([0.54, 0.55, 0.56, 0.57], [-3.0, -2.0, -1.0, 0.0, 1.0], [900.0, 920.0, 940.0, 960.0, 980.0, 1000.0])
    """
    power = math.floor(math.log10((high - low) / most))
    for step in (float(f"{digit}e{power + more}") for more in (0, 1) for digit in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]
