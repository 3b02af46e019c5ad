"""The figures of a report. A figure without data is not drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.drawing import (
    FRONT,
    INTERVALS,
    NamedFigure,
    Sheet,
    mean,
    points,
    score_scale,
)
from smoa_lightning.ablation.report.figures_axes import costs_by_subspaces, line_figures
from smoa_lightning.ablation.report.figures_heat import heat_maps
from smoa_lightning.ablation.report.figures_search import sensitivity
from smoa_lightning.ablation.report.figures_trade_off import trade_off_curves
from smoa_lightning.ablation.report.folder import same_rows
from smoa_lightning.ablation.report.forest import forest
from smoa_lightning.ablation.report.front import established_front
from smoa_lightning.ablation.report.labels import label_points
from smoa_lightning.ablation.report.styles import Styles, size_label
from smoa_lightning.ablation.report.ticks import scale
from smoa_lightning.records.page.theme import INK

SHARED_MACHINE = "Times of runs that shared a machine are not exact."
MOST_LABELS = 16  # with more points, no point has a label

Maker = Callable[[], NamedFigure | None]


def all_figures(analysis: Analysis) -> list[Maker]:
    """Return functions that each draw a figure, or return ``None`` without numbers for it; the forest is the first."""
    styles = Styles(analysis)
    by_axis = [*line_figures(analysis, styles), *heat_maps(analysis, styles)]
    first, last = [forest, trade_off_curves, sensitivity], [parameters, update_rank, costs, costs_by_subspaces]
    return [
        *(functools.partial(make, analysis, styles) for make in first),
        *by_axis,
        *(functools.partial(make, analysis, styles) for make in last),
    ]


def parameters(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw score against trainable parameters, with the front of established differences."""
    shown = _with(analysis, "parameters")
    if len({cell.costs["parameters"] for cell in shown}) < 2:
        return None
    sheet = Sheet()
    front = established_front(shown, "parameters", analysis.direction, same_rows(analysis.study.description))
    corners = [(cell.costs["parameters"], mean(cell)) for cell in front]
    _scatter(sheet.panels[0], analysis, styles, shown, ("parameters", "trainable parameters"), corners)
    if front:
        line = {"linewidth": 0.9, "linestyle": "--", "label": FRONT, "zorder": 1.5}
        sheet.panels[0].plot(*zip(*corners, strict=True), color=INK, **line)
        more = "The dashed front joins cells that are each established to be better than the smaller one before."
    else:
        more = "No front is drawn: no larger cell is established to be better than the best of the smallest cells."
    sheet.legend(styles.title)
    caption = f"Score against size. {INTERVALS} {more} p is corrected for all pairs of cells of different sizes."
    return NamedFigure("parameters", caption, sheet.figure)


def update_rank(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw score against the effective rank of the trained update."""
    shown = _with(analysis, "rank")
    if len(shown) < 2:
        return None
    sheet = Sheet()
    title = "effective rank of the update (mean of layers)"
    _scatter(sheet.panels[0], analysis, styles, shown, ("rank", title))
    sheet.legend(styles.title)
    caption = f"Score against the effective rank of the update. {INTERVALS}"
    return NamedFigure("update_rank", caption, sheet.figure)


def costs(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw score against training speed and memory."""
    panels = [(f"{unit}_per_second", f"training {unit} per second") for unit in ("tokens", "images")]
    panels.append(("memory", "peak memory of the run, MB"))
    panels = [(name, title) for name, title in panels if _differ(_with(analysis, name), name)]
    if not panels:
        return None
    sheet = Sheet([2.3] * len(panels))
    for axes, (name, title) in zip(sheet.panels, panels, strict=True):
        _scatter(axes, analysis, styles, _with(analysis, name), (name, title))
    sheet.legend(styles.title)
    return NamedFigure("costs", f"Score against cost. {INTERVALS} {SHARED_MACHINE}", sheet.figure)


def _with(analysis: Analysis, cost: str) -> list[CellResult]:
    return [cell for cell in analysis.scored if cost in cell.costs]


def _differ(cells: Sequence[CellResult], cost: str) -> bool:
    """Whether a cost differs by more than a thousandth between cells, so that there is something to see."""
    values = [cell.costs[cost] for cell in cells]
    return len(values) > 1 and max(values) - min(values) > 1e-3 * max(values)


def _scatter(
    axes: Any, analysis: Analysis, styles: Styles, shown: Sequence[CellResult], drawn: tuple[str, str],
    front: Sequence[tuple[float, float]] = (),
) -> None:  # fmt: skip
    """Draw the scores of cells against a cost, with labels of their sizes.

    Args:
        axes: The panel.
        analysis: The numbers.
        styles: The styles of the methods.
        shown: The cells.
        drawn: Name and title of the cost.
        front: Corners of a line that will be drawn, so that no label covers it.
    """
    cost, title = drawn
    scale(axes.xaxis, [cell.costs[cost] for cell in shown])
    score_scale(axes, analysis, shown)
    by_method: dict[str, list[CellResult]] = {}
    for cell in shown:
        by_method.setdefault(styles.method(cell), []).append(cell)
    for method, cells in by_method.items():
        points(axes, [cell.costs[cost] for cell in cells], cells, color=styles.colour(method),
               marker=styles.marker(method), linestyle="none", label=method if styles.words else None)  # fmt: skip
    axes.set_xlabel(title)
    if len(shown) <= MOST_LABELS:
        lines = [list(pair) for pair in pairwise(front)]
        for cell in shown:
            if cell.estimate is not None and cell.estimate.low is not None and cell.estimate.high is not None:
                lines.append([(cell.costs[cost], cell.estimate.low), (cell.costs[cost], cell.estimate.high)])
        label_points(axes, [(cell.costs[cost], mean(cell), size_label(cell)) for cell in shown], lines)
