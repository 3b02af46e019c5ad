"""The figures of a report. A figure without data is not drawn."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult, unit
from smoa_lightning.ablation.report.drawing import (
    BOTTOM,
    COLOURS,
    LINES,
    RANK,
    SUBSPACES,
    NamedFigure,
    Styles,
    arrange,
    bars,
    logarithmic,
    new_figure,
    score_axis,
    size_label,
)
from smoa_lightning.ablation.report.figures_search import sensitivity

INTERVALS = "Points are means over seeds; bars are 95 % t-intervals over seeds."
SHARED_MACHINE = "Times of runs that shared a machine are not exact."
MOST_DIFFERENCES = 40  # in the forest plot
MOST_LABELS = 16  # with more points, no point has a label


def all_figures(analysis: Analysis) -> list[Callable[[], NamedFigure | None]]:
    """Return functions that each draw a figure, or return ``None`` without numbers for it."""
    styles = Styles(analysis)
    makers: list[Callable[[Analysis, Styles], NamedFigure | None]] = [
        forest, parameters, by_rank, by_subspaces, heat_map, sensitivity, update_rank, costs,
        costs_by_subspaces,
    ]  # fmt: skip
    return [functools.partial(make, analysis, styles) for make in makers]


def forest(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw the differences from the baseline with their intervals."""
    shown = [c for c in analysis.comparisons if c.difference.low is not None and c.difference.high is not None]
    if not shown:
        return None
    cut = len(shown) - MOST_DIFFERENCES
    shown = sorted(shown, key=lambda c: -abs(c.difference.value))[:MOST_DIFFERENCES] if cut > 0 else shown
    shown.reverse()
    figure, (axes,) = new_figure(4.6 + (left := 0.2 + 0.082 * max(len(c.cell) for c in shown)), 0.95 + 0.3 * len(shown))
    scale, name = unit(shown[0].metric)
    for kind, colour in ((True, COLOURS[0]), (False, "#888888")):
        rows = [row for row, c in enumerate(shown) if c.verdict.established == kind]
        found = [shown[row].difference for row in rows]
        axes.hlines(rows, [scale * float(d.low or 0) for d in found], [scale * float(d.high or 0) for d in found],
                    color=colour, linewidth=1.6)  # fmt: skip
        axes.plot([scale * d.value for d in found], rows, "o", color=colour, markersize=5)
    axes.axvline(0, color="#333333", linewidth=0.9)
    axes.set_yticks(range(len(shown)), [c.cell for c in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel(f"difference from the baseline in {shown[0].metric}{f', {name}' if name else ''}")
    arrange(figure, left)
    caption = "Differences from the baseline with 95 % intervals over seeds and items. The intervals are not corrected "
    caption += "for the number of comparisons. Blue: established after the correction; grey: not established."
    if cut > 0:
        caption += f" The {MOST_DIFFERENCES} largest are shown; differences.csv has all."
    return NamedFigure("forest", caption, figure)


def parameters(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw score against trainable parameters, with the Pareto front."""
    shown = _with(analysis, "parameters")
    if len({cell.costs["parameters"] for cell in shown}) < 2:
        return None
    figure, (axes,) = new_figure()
    logarithmic(axes.xaxis, [cell.costs["parameters"] for cell in shown])
    _scatter(axes, analysis, styles, shown, "parameters")
    front = pareto([(cell.costs["parameters"], _mean(cell)) for cell in shown], analysis.direction)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color="#555555", linewidth=0.9, linestyle="--", label="Pareto front")
    axes.set_xlabel("trainable parameters")
    _score(axes, analysis)
    arrange(figure)
    caption = f"Score against size. {INTERVALS} Dashed: cells with a better mean than every smaller cell."
    return NamedFigure("parameters", caption, figure)


def pareto(points: list[tuple[float, float]], direction: str) -> list[tuple[float, float]]:
    """Return the points with a better score than every point of the same or a lower cost.

    >>> pareto([(1, 0.5), (2, 0.4), (3, 0.6)], "maximize")
    [(1, 0.5), (3, 0.6)]
    """
    sign = 1 if direction == "maximize" else -1
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * score > sign * front[-1][1]:
            front.append((cost, score))
    return front


def by_rank(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw score against r for each method."""
    return _curves(analysis, styles, RANK, "rank", "rank r", "Score against the rank.")


def by_subspaces(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw score against K for each method."""
    label = "number of subspaces K"
    return _curves(analysis, styles, SUBSPACES, "subspaces", label, "Score against the number of subspaces.")


def _curves(analysis: Analysis, styles: Styles, key: str, name: str, label: str, caption: str) -> NamedFigure | None:
    shown = [cell for cell in analysis.scored if isinstance(cell.setting(key), int)]
    others = SUBSPACES if key == RANK else RANK
    curves: dict[tuple[str, Any], list[CellResult]] = {}
    for cell in shown:
        curves.setdefault((styles.method(cell), cell.setting(others)), []).append(cell)
    if not any(len({cell.setting(key) for cell in curve}) > 1 for curve in curves.values()):
        return None
    figure, (axes,) = new_figure()
    sizes = sorted({size for _, size in curves if size is not None})
    for number, ((method, size), curve) in enumerate(curves.items()):
        curve.sort(key=lambda cell: cell.setting(key))
        letter = "K" if key == RANK else "r"
        text = f"{method}, {letter}={size}" if len(sizes) > 1 and size is not None else method
        shift = 1 + 0.012 * (number - len(curves) / 2)  # so that bars do not overlap
        x = [cell.setting(key) * shift for cell in curve]
        style = LINES[sizes.index(size) % len(LINES)] if size in sizes else "-"
        axes.errorbar(
            x, [_mean(c) for c in curve], yerr=bars(curve), linestyle=style, color=styles.colour(method), capsize=2,
            marker=styles.marker(method), markersize=5, elinewidth=1, label=text,
        )  # fmt: skip
    _doubling(axes, [cell.setting(key) for cell in shown])
    axes.set_xlabel(label)
    _score(axes, analysis)
    arrange(figure)
    return NamedFigure(name, f"{caption} {INTERVALS}", figure)


def heat_map(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw the mean score by r and K, with a panel for each method that has both."""
    found: dict[str, dict[tuple[int, int], float]] = {}
    for cell in analysis.scored:
        rank, count = cell.setting(RANK), cell.setting(SUBSPACES)
        if isinstance(rank, int) and isinstance(count, int):
            found.setdefault(styles.method(cell), {})[rank, count] = _mean(cell)
    panels = {m: t for m, t in found.items() if all(len({key[axis] for key in t}) > 1 for axis in (0, 1))}
    if not panels:
        return None
    figure, places = new_figure(3.6, 3.4, len(panels))
    values = [value for table in panels.values() for value in table.values()]
    for axes, (method, table) in zip(places, panels.items(), strict=True):
        ranks, counts = (sorted({key[axis] for key in table}) for axis in (0, 1))
        grid = [[table.get((rank, count), math.nan) for rank in ranks] for count in counts]
        image = axes.imshow(grid, cmap="cividis", vmin=min(values), vmax=max(values), origin="lower", aspect="auto")
        for row, line in enumerate(grid):
            for column, value in enumerate(line):
                if not math.isnan(value):
                    ink = "black" if image.norm(value) > 0.55 else "white"
                    axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=8.5)
        axes.grid(False)
        axes.set_xticks(range(len(ranks)), ranks)
        axes.set_yticks(range(len(counts)), counts)
        axes.set_xlabel("rank r")
        axes.set_ylabel("subspaces K")
        axes.set_title(method, fontsize=10)
    arrange(figure, left=0.6, right=1.1, top=0.35)
    width, height = figure.get_size_inches()
    edges = [1 - 0.95 / width, BOTTOM / height, 0.15 / width, 1 - (BOTTOM + 0.35) / height]
    figure.colorbar(image, cax=figure.add_axes(edges), label=score_axis(analysis).split(" (")[0])
    return NamedFigure("heat_map", "Mean score by rank and number of subspaces. Empty fields were not run.", figure)


def update_rank(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw score against the effective rank of the trained update."""
    shown = _with(analysis, "rank")
    if len(shown) < 2:
        return None
    figure, (axes,) = new_figure()
    logarithmic(axes.xaxis, [cell.costs["rank"] for cell in shown])
    _scatter(axes, analysis, styles, shown, "rank")
    axes.set_xlabel("effective rank of the update, mean over measured layers")
    _score(axes, analysis)
    arrange(figure)
    return NamedFigure("update_rank", f"Score against the effective rank of the update. {INTERVALS}", figure)


def costs(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw score against training speed and memory."""
    panels = [("tokens_per_second", "training tokens per second"), ("memory", "peak memory of the run, MB")]
    panels = [(name, label) for name, label in panels if len(_with(analysis, name)) > 1]
    if not panels:
        return None
    figure, found = new_figure(4.6, 3.8, len(panels))
    for axes, (name, label) in zip(found, panels, strict=True):
        _scatter(axes, analysis, styles, _with(analysis, name), name)
        axes.set_xlabel(label)
        _score(axes, analysis)
    for axes in found[1:]:
        axes.set_ylabel("")
    arrange(figure)
    return NamedFigure("costs", f"Score against cost. {INTERVALS} {SHARED_MACHINE}", figure)


def costs_by_subspaces(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw step time and memory against K, for each method and rank."""
    panels = [("step", "seconds of a training step"), ("memory", "peak memory of the run, MB")]
    curves: dict[tuple[str, Any], list[CellResult]] = {}
    for cell in analysis.scored:
        if isinstance(cell.setting(SUBSPACES), int) and all(cost in cell.costs for cost, _ in panels):
            curves.setdefault((styles.method(cell), cell.setting(RANK)), []).append(cell)
    if not any(len({cell.setting(SUBSPACES) for cell in curve}) > 1 for curve in curves.values()):
        return None
    ranks = list(dict.fromkeys(rank for _, rank in curves))
    figure, found = new_figure(4.6, 3.8, len(panels))
    for axes, (cost, label) in zip(found, panels, strict=True):
        for (method, rank), curve in curves.items():
            curve.sort(key=lambda cell: cell.setting(SUBSPACES))
            axes.plot(
                [cell.setting(SUBSPACES) for cell in curve], [cell.costs[cost] for cell in curve],
                LINES[ranks.index(rank) % len(LINES)], color=styles.colour(method), marker=styles.marker(method),
                markersize=5, label=method if len(ranks) == 1 else f"{method}, r={rank}",
            )  # fmt: skip
        _doubling(axes, [cell.setting(SUBSPACES) for curve in curves.values() for cell in curve])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("number of subspaces K")
        axes.set_ylabel(label)
    arrange(figure)
    caption = f"Cost against the number of subspaces: medians over runs. {SHARED_MACHINE}"
    return NamedFigure("costs_by_subspaces", caption, figure)


# -------------------------------------------------------------------------------------------------------------- helpers


def _doubling(axes: Any, values: list[int]) -> None:
    """Give the horizontal axis a scale of powers of two, with a label at each value."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(values)), [str(value) for value in sorted(set(values))])
    axes.minorticks_off()


def _with(analysis: Analysis, cost: str) -> list[CellResult]:
    return [cell for cell in analysis.scored if cost in cell.costs]


def _mean(cell: CellResult) -> float:
    return cell.estimate.value if cell.estimate is not None else math.nan


def _scatter(axes: Any, analysis: Analysis, styles: Styles, shown: list[CellResult], cost: str) -> None:
    by_method: dict[str, list[CellResult]] = {}
    for cell in shown:
        by_method.setdefault(styles.method(cell), []).append(cell)
    for method, cells in by_method.items():
        axes.errorbar(
            [cell.costs[cost] for cell in cells], [_mean(cell) for cell in cells], yerr=bars(cells),
            color=styles.colour(method), marker=styles.marker(method), markersize=5.5, linewidth=1, capsize=2,
            linestyle="none", label=method,
        )  # fmt: skip
    if len(shown) <= MOST_LABELS:
        _label(axes, [(cell.costs[cost], _mean(cell), size_label(cell)) for cell in shown])


def _label(axes: Any, points: list[tuple[float, float, str]]) -> None:
    """Write a label at each point, unless it would cover another label."""
    axes.get_xlim(), axes.get_ylim()  # fixes the limits, which the positions depend on
    to_axes = (axes.transData + axes.transAxes.inverted()).transform
    taken: list[tuple[float, float]] = []
    for x, y, text in points:
        place = tuple(to_axes((x, y)))
        if text and all(abs(place[0] - u) > 0.15 or abs(place[1] - v) > 0.05 for u, v in taken):
            side, shift = ("right", -5) if place[0] > 0.85 else ("left", 5)
            axes.annotate(text, (x, y), xytext=(shift, 4), textcoords="offset points", fontsize=7, ha=side)
            taken.append(place)


def _score(axes: Any, analysis: Analysis) -> None:
    """Label the axis of scores, and draw the score of the base model."""
    if len(analysis.base_models) == 1 and len(analysis.base_models[0][1]) == len(analysis.cells):
        value = analysis.base_models[0][0].score
        axes.axhline(value, color="#999999", linewidth=0.9, linestyle=":", label="base model")
    axes.set_ylabel(score_axis(analysis))
