"""Heat maps of the mean score over each pair of numeric axes, with the intervals in the fields."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.dimensions import Dimension
from smoa_lightning.ablation.report.drawing import WIDTH, NamedFigure, Sheet, mean, score_title
from smoa_lightning.ablation.report.estimates import interval_text, no_interval
from smoa_lightning.ablation.report.figures_axes import fewer, grouped, legend_title
from smoa_lightning.ablation.report.styles import Styles
from smoa_lightning.ablation.report.ticks import label_inches, linear_ticks, plain, tick_labels
from smoa_lightning.records.page.theme import ON_DARK, ON_LIGHT

MOST_PANELS = 6
LEFT, RIGHT = 0.72, 0.86  # inches at the sides of a panel; the scale of colours is to the right
FIELD = 0.5  # inches of the height of a field
LARGEST, SMALLEST = 8.5, 5.5  # points of the texts in fields


def heat_maps(analysis: Analysis, styles: Styles) -> list[Any]:
    """Return a function for the heat map of each pair of numeric axes."""
    pairs = combinations(styles.dimensions, 2)
    return [functools.partial(heat_map, analysis, styles, first, second) for first, second in pairs]


def heat_map(analysis: Analysis, styles: Styles, across: Dimension, up: Dimension) -> NamedFigure | None:
    """Draw the mean score over two numeric axes, with a panel for each combination of the other axes."""
    if len({cell.metric for cell in analysis.scored}) > 1:
        return None
    groups = {
        key: cells
        for key, cells in grouped(analysis.scored, styles, across, up).items()
        if len({across.of(cell) for cell in cells}) > 1 and len({up.of(cell) for cell in cells}) > 1
    }
    if not groups:
        return None
    kept, sentence = fewer(groups, styles, analysis.direction, MOST_PANELS)
    shown = [cell for cells in kept.values() for cell in cells]
    low, high, why = colour_range(shown)
    rows = [len({up.of(cell) for cell in cells}) for cells in kept.values()]
    sheet = Sheet([FIELD * max(count, 2) for count in rows], left=LEFT, right=RIGHT, top=0.4)
    colours = "cividis" if analysis.direction == "maximize" else "cividis_r"
    for number, (key, cells) in enumerate(kept.items()):
        axes = sheet.panels[number]
        mesh = _panel(axes, cells, (across, up), (low, high), colours)
        axes.set_xlabel(across.title)
        axes.set_ylabel(up.title)
        if key:
            names = legend_title(styles, across, up)
            axes.set_title(f"{names}: {' / '.join(key)}", fontsize=9, loc="left", x=0, pad=5)
        left, top, width, height = sheet.place(number)
        bar = sheet.add((left + width + 0.1, top, 0.13, height))
        sheet.figure.colorbar(mesh, cax=bar)
        places = linear_ticks(low, high, 5)
        bar.set_yticks(places, tick_labels(places, uniform=True), fontsize=8)
    name = "heat_map" if {across.word, up.word} == {"r", "num_subspaces"} else f"heat_map_{across.file}_{up.file}"
    caption = f"Mean {score_title(analysis)} by {across.title} and {up.title}, with 95 % intervals over seeds in "
    caption += f"brackets. Brighter is better. {why} Empty fields were not run.{sentence}"
    if any(no_interval(cell) for cell in shown):
        caption += " A field without brackets has no interval: it has one seed, or equal scores."
    return NamedFigure(name, caption, sheet.figure)


def _panel(
    axes: Any, cells: Sequence[CellResult], drawn: tuple[Dimension, Dimension], ends: tuple[float, float], colours: str
) -> Any:
    across, up = drawn
    columns, rows = (sorted({dimension.of(cell) for cell in cells}) for dimension in drawn)
    by_place: Mapping[tuple[float, float], CellResult] = {(across.of(cell), up.of(cell)): cell for cell in cells}
    grid = np.full((len(rows), len(columns)), math.nan)
    for (x, y), cell in by_place.items():
        grid[rows.index(y), columns.index(x)] = mean(cell)
    mesh = axes.pcolormesh(np.ma.masked_invalid(grid), cmap=colours, vmin=ends[0], vmax=ends[1], edgecolors="face")
    width = (WIDTH - LEFT - RIGHT) / len(columns)
    for (x, y), cell in by_place.items():
        share = (mean(cell) - ends[0]) / (ends[1] - ends[0])
        bright = share if colours == "cividis" else 1 - share
        _write(axes, (columns.index(x) + 0.5, rows.index(y) + 0.5), cell, width, ON_LIGHT if bright > 0.5 else ON_DARK)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([n + 0.5 for n in range(len(columns))], [plain(value) for value in columns])
    axes.set_yticks([n + 0.5 for n in range(len(rows))], [plain(value) for value in rows])
    return mesh


def _write(axes: Any, at: tuple[float, float], cell: CellResult, width: float, colour: str) -> None:
    """Write mean and interval into a field, as large as fits; without space for the interval, the mean alone."""
    estimate = cell.estimate
    assert estimate is not None
    text, ends = f"{estimate.value:.3f}", ""
    if estimate.low is not None and estimate.high is not None:
        ends = interval_text(estimate.low, estimate.high)
        for lines in (ends, ends.replace(", ", ",\n")):
            size = _size(lines, width)
            if size >= SMALLEST:
                both = {"ha": "center", "color": colour, "linespacing": 1.05}
                up = 0.12 if "\n" in lines else 0.02
                axes.text(*at, text, va="bottom", fontsize=min(LARGEST, _size(text, width)), **both,
                          transform=_moved(axes, up))  # fmt: skip
                axes.text(*at, lines, va="top", fontsize=min(size, LARGEST - 1), **both, transform=_moved(axes, up))
                return
    axes.text(*at, text, va="center", ha="center", color=colour, fontsize=min(LARGEST, _size(text, width)))


def _moved(axes: Any, inches: float) -> Any:
    """Return the transformation of the fields, moved up."""
    from matplotlib.transforms import ScaledTranslation

    return axes.transData + ScaledTranslation(0, inches * 0.5, axes.figure.dpi_scale_trans)


def _size(text: str, width: float) -> float:
    """Return the size in points at which a text is as wide as a field."""
    longest = max(text.splitlines(), key=len)
    return (width - 0.05) / label_inches(longest, 1.0)


def colour_range(cells: Sequence[CellResult]) -> tuple[float, float, str]:
    """Return the ends of the scale of colours, and the sentence about it.

    The scale is at least as wide as a typical interval. So means that differ less than their intervals have nearly the
    same colour.
    """
    means = [mean(cell) for cell in cells]
    width, what = typical_interval(cells)
    span = max(max(means) - min(means), width) or 0.02 * abs(means[0]) or 1.0
    middle = (max(means) + min(means)) / 2
    if not width:
        sentence = "No cell has an interval, so the colours may show only noise."
    elif span > width:
        sentence = f"The {what} is {width:.3f} wide."
    else:
        sentence = f"The colours span the {what}, {width:.3f}, since the means differ by less."
    return middle - span / 2, middle + span / 2, sentence


def typical_interval(cells: Sequence[CellResult]) -> tuple[float, str]:
    """Return the median width of the 95 % intervals over seeds; without one, of those over the items of a run.

    The width is 0 if the runs have neither.
    """
    found = [
        cell.estimate.high - cell.estimate.low
        for cell in cells
        if cell.estimate is not None and cell.estimate.low is not None and cell.estimate.high is not None
    ]
    if found:
        return statistics.median(found), "median 95 % interval over seeds"
    runs = [run for cell in cells for run in cell.runs if len(run.values) > 1]
    widths = [2 * 1.96 * float(run.values.std(ddof=1)) / math.sqrt(len(run.values)) for run in runs]
    return (statistics.median(widths), "median 95 % interval over the items of a run") if widths else (0.0, "")
