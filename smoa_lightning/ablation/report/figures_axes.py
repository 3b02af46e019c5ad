"""Figures against a numeric axis of the study: one curve for each combination of the other axes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.dimensions import Dimension
from smoa_lightning.ablation.report.drawing import INTERVALS, NamedFigure, Sheet, above, mean, points, score_scale
from smoa_lightning.ablation.report.styles import Styles, short_name
from smoa_lightning.ablation.report.ticks import scale
from smoa_lightning.records.page.theme import COLOURS, LINES, MARKERS

MOST_CURVES = 12
APART = 0.008  # shift between neighbouring curves as a share of the axis, so that their bars do not cover each other

Key = tuple[str, ...]
Groups = dict[Key, list[CellResult]]


def line_figures(analysis: Analysis, styles: Styles) -> list[Any]:
    """Return a function for the figure of each numeric axis."""
    return [functools.partial(against, analysis, styles, dimension) for dimension in styles.dimensions]


def against(analysis: Analysis, styles: Styles, dimension: Dimension) -> NamedFigure | None:
    """Draw the score against a numeric axis."""
    groups = grouped(analysis.scored, styles, dimension)
    if not any(len(curve) > 1 for curve in groups.values()):
        return None
    kept, sentence = fewer(groups, styles, analysis.direction, MOST_CURVES)
    shown = [cell for curve in kept.values() for cell in curve]
    sheet = Sheet()
    (axes,) = sheet.panels
    values = sorted({dimension.of(cell) for cell in shown})
    scale(axes.xaxis, values, values)
    score_scale(axes, analysis, shown)
    _curves(axes, styles, kept, dimension)
    axes.set_xlabel(dimension.title)
    sheet.legend(legend_title(styles, dimension))
    caption = f"Score against the {dimension.title}. {INTERVALS}{sentence}"
    return NamedFigure(dimension.file, caption, sheet.figure)


def _curves(axes: Any, styles: Styles, curves: Mapping[Key, list[CellResult]], dimension: Dimension) -> None:
    to_share, to_value = axes.transScale + axes.transLimits, (axes.transScale + axes.transLimits).inverted()
    looks = curve_looks(styles, curves)
    for number, (key, curve) in enumerate(curves.items()):
        curve.sort(key=dimension.of)
        shift = APART * (number - (len(curves) - 1) / 2)
        shares = to_share.transform([(dimension.of(cell), mean(cell)) for cell in curve])
        shares[:, 0] += shift
        x = to_value.transform(shares)[:, 0]
        points(axes, x, curve, **looks[key])


def grouped(cells: Sequence[CellResult], styles: Styles, *drawn: Dimension) -> Groups:
    """Return the cells by their labels on the axes that are not drawn: first the words, then the numbers."""
    groups: Groups = {}
    axes = [*styles.words, *styles.others(*drawn)]
    for cell in cells:
        groups.setdefault(tuple(cell.labels[axis] for axis in axes), []).append(cell)
    return groups


def legend_title(styles: Styles, *drawn: Dimension) -> str:
    """Return the names of the axes that separate curves."""
    return " / ".join(short_name(axis) for axis in [*styles.words, *styles.others(*drawn)])


def curve_looks(styles: Styles, curves: Mapping[Key, Sequence[CellResult]]) -> dict[Key, dict[str, Any]]:
    """Return colour, marker, line style and label of each curve.

    Colour and marker show the method. The line style shows the numeric axes, if curves differ there, else the method
    too. If all curves have the same method, all three show the numeric axes.
    """
    numbers = list(dict.fromkeys(key[len(styles.words) :] for key in curves))
    one = len({styles.method(curve[0]) for curve in curves.values()}) == 1
    looks: dict[Key, dict[str, Any]] = {}
    for key, curve in curves.items():
        method, place = styles.method(curve[0]), numbers.index(key[len(styles.words) :])
        by_number = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
        by_method = {"color": styles.colour(method), "marker": styles.marker(method)}
        line = LINES[place % len(LINES)] if len(numbers) > 1 else styles.line(method)
        looks[key] = {**(by_number if one else by_method), "linestyle": line, "label": " / ".join(key) or None}
    return looks


def fewer(groups: Groups, styles: Styles, direction: str, most: int) -> tuple[Groups, str]:
    """Return at most as many groups as a reader can tell apart, and the sentence that says which.

    Each method keeps the group with its best mean. If there are still too many, the best methods stay.
    """
    if len(groups) <= most:
        return groups, ""
    sign = 1 if direction == "maximize" else -1
    best = {key: max(sign * mean(cell) for cell in cells) for key, cells in groups.items()}
    of_method: dict[str, Key] = {}
    for key in sorted(groups, key=lambda key: -best[key]):
        of_method.setdefault(styles.method(groups[key][0]), key)
    kept = set(list(of_method.values())[:most])
    sentence = " Only the best combination of the other numeric axes is shown for each "
    sentence += "method" if len(of_method) <= most else f"of the {most} best methods"
    return {key: cells for key, cells in groups.items() if key in kept}, f"{sentence}; cells.csv has all cells."


def costs_by_subspaces(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw step time and memory against K."""
    dimension = next((each for each in styles.dimensions if each.word == "num_subspaces"), None)
    panels = [("step", "seconds of a training step"), ("memory", "peak memory of the run, MB")]
    if dimension is None:
        return None
    measured = [cell for cell in analysis.scored if all(cost in cell.costs for cost, _ in panels)]
    groups = grouped(measured, styles, dimension)
    if not any(len(curve) > 1 for curve in groups.values()):
        return None
    curves, sentence = fewer(groups, styles, analysis.direction, MOST_CURVES)
    looks = curve_looks(styles, curves)
    shown = [cell for curve in curves.values() for cell in curve]
    values = sorted({dimension.of(cell) for cell in shown})
    sheet = Sheet([2.2] * len(panels))
    for axes, (cost, title) in zip(sheet.panels, panels, strict=True):
        scale(axes.xaxis, values, values)
        scale(axes.yaxis, [0.0, *(cell.costs[cost] for cell in shown)], logarithmic=False)
        axes.set_ylim(bottom=0)
        for key, curve in curves.items():
            curve.sort(key=dimension.of)
            x, y = [dimension.of(cell) for cell in curve], [cell.costs[cost] for cell in curve]
            axes.plot(x, y, markersize=5, linewidth=1.2, **looks[key])
        axes.set_xlabel(dimension.title)
        above(axes, title)
    sheet.legend(legend_title(styles, dimension))
    caption = "Cost against the number of subspaces: medians over runs. Times of runs that shared a machine are not "
    return NamedFigure("costs_by_subspaces", f"{caption}exact.{sentence}", sheet.figure)
