"""The figures of a report; each is drawn only where there is something to show."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis, CellResult, unit
from smoa_lightning.ablation.report.drawing import (
    RANK,
    SUBSPACES,
    Drawn,
    Styles,
    bars,
    new_figure,
    score_axis,
    size_label,
)
from smoa_lightning.ablation.report.figures_search import sensitivity

INTERVALS = "Points are means over seeds, bars 95 % t-intervals over seeds."


def draw_all(analysis: Analysis) -> list[Drawn]:
    """Draw every figure that the study has numbers for."""
    styles = Styles(analysis)
    makers: list[Callable[[Analysis, Styles], Drawn | None]] = [
        forest, parameters, by_rank, by_subspaces, heat_map, sensitivity, update_rank, costs,
    ]  # fmt: skip
    return [drawn for make in makers if (drawn := make(analysis, styles)) is not None]


def forest(analysis: Analysis, styles: Styles) -> Drawn | None:
    """Differences from the baseline with their intervals."""
    shown = [c for c in analysis.comparisons if c.difference.low is not None and c.difference.high is not None]
    if not shown:
        return None
    figure, axes = new_figure(6.8, 1.2 + 0.32 * len(shown))
    scale, name = unit(shown[0].metric)
    for place, comparison in enumerate(reversed(shown)):
        found = comparison.difference
        colour = "#0072B2" if comparison.verdict.established else "#888888"
        low, high = (scale * float(end or 0) for end in (found.low, found.high))
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
        axes.plot(scale * found.value, place, marker="o", color=colour, markersize=5)
    axes.axvline(0, color="#333333", linewidth=0.9)
    axes.set_yticks(range(len(shown)), [c.cell for c in reversed(shown)])
    axes.set_xlabel(f"difference from the baseline in {shown[0].metric}{f', {name}' if name else ''}")
    caption = "Differences from the baseline with 95 % intervals over seeds and items, before the correction for their "
    caption += "number; blue: established after it, grey: not established."
    return Drawn("forest", caption, figure)


def parameters(analysis: Analysis, styles: Styles) -> Drawn | None:
    """Score against trainable parameters, with the Pareto front."""
    shown = _with(analysis, "parameters")
    if len({cell.costs["parameters"] for cell in shown}) < 2:
        return None
    figure, axes = new_figure()
    _scatter(axes, analysis, styles, shown, "parameters")
    front = pareto([(cell.costs["parameters"], _mean(cell)) for cell in shown], analysis.direction)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color="#555555", linewidth=0.9, linestyle="--", label="Pareto front")
    axes.set_xscale("log")
    axes.set_xlabel("trainable parameters")
    _finish(axes, analysis)
    return Drawn("parameters", f"Score against size. {INTERVALS} Dashed: no smaller cell has a better mean.", figure)


def pareto(points: list[tuple[float, float]], direction: str) -> list[tuple[float, float]]:
    """Return the points that no other one beats at the same cost or less.

    >>> pareto([(1, 0.5), (2, 0.4), (3, 0.6)], "maximize")
    [(1, 0.5), (3, 0.6)]
    """
    sign = 1 if direction == "maximize" else -1
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * score > sign * front[-1][1]:
            front.append((cost, score))
    return front


def by_rank(analysis: Analysis, styles: Styles) -> Drawn | None:
    """Score against r for each method."""
    return _curves(analysis, styles, RANK, "rank", "rank r", "Score against the rank.")


def by_subspaces(analysis: Analysis, styles: Styles) -> Drawn | None:
    """Score against K for each method."""
    return _curves(analysis, styles, SUBSPACES, "subspaces", "number of subspaces K", "Score against the subspaces.")


def _curves(analysis: Analysis, styles: Styles, key: str, name: str, label: str, says: str) -> Drawn | None:
    shown = [cell for cell in analysis.scored if isinstance(cell.setting(key), int)]
    others = SUBSPACES if key == RANK else RANK
    curves: dict[tuple[str, Any], list[CellResult]] = {}
    for cell in shown:
        curves.setdefault((styles.method(cell), cell.setting(others)), []).append(cell)
    if not any(len({cell.setting(key) for cell in curve}) > 1 for curve in curves.values()):
        return None
    figure, axes = new_figure()
    lines = ("-", "--", ":", "-.")
    sizes = sorted({size for _, size in curves if size is not None})
    for number, ((method, size), curve) in enumerate(curves.items()):
        curve.sort(key=lambda cell: cell.setting(key))
        letter = "K" if key == RANK else "r"
        text = f"{method}, {letter}={size}" if len(sizes) > 1 and size is not None else method
        shift = 1 + 0.012 * (number - len(curves) / 2)  # so that bars do not hide one another
        x = [cell.setting(key) * shift for cell in curve]
        style = lines[sizes.index(size) % len(lines)] if size in sizes else "-"
        axes.plot(x, [_mean(c) for c in curve], style, color=styles.colour(method), marker=styles.marker(method),
                  markersize=5, label=text)  # fmt: skip
        for place, cell in zip(x, curve, strict=True):
            if (ends := bars(cell)) is not None:
                axes.errorbar(place, _mean(cell), yerr=ends, color=styles.colour(method), linewidth=1, capsize=2)
    values = sorted({cell.setting(key) for cell in shown})
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.set_xlabel(label)
    _finish(axes, analysis)
    return Drawn(name, f"{says} {INTERVALS}", figure)


def heat_map(analysis: Analysis, styles: Styles) -> Drawn | None:
    """Mean score by r and K, a panel for each method that has both."""
    found: dict[str, dict[tuple[int, int], float]] = {}
    for cell in analysis.scored:
        rank, count = cell.setting(RANK), cell.setting(SUBSPACES)
        if isinstance(rank, int) and isinstance(count, int):
            found.setdefault(styles.method(cell), {})[rank, count] = _mean(cell)
    panels = {m: t for m, t in found.items() if all(len({key[axis] for key in t}) > 1 for axis in (0, 1))}
    if not panels:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 2.9 * len(panels), 3.4), layout="constrained")
    values = [value for table in panels.values() for value in table.values()]
    for axes, (method, table) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        ranks, counts = (sorted({key[axis] for key in table}) for axis in (0, 1))
        grid = [[table.get((rank, count), math.nan) for rank in ranks] for count in counts]
        image = axes.imshow(grid, cmap="cividis", vmin=min(values), vmax=max(values), origin="lower", aspect="auto")
        for row, line in enumerate(grid):
            for column, value in enumerate(line):
                if not math.isnan(value):
                    axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white",
                              bbox={"facecolor": "#00000066", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        axes.set_xticks(range(len(ranks)), ranks)
        axes.set_yticks(range(len(counts)), counts)
        axes.set_xlabel("rank r")
        axes.set_ylabel("subspaces K")
        axes.set_title(method, fontsize=10)
    figure.colorbar(image, ax=figure.axes, label=score_axis(analysis).split(" (")[0])
    return Drawn("heat_map", "Mean score by rank and number of subspaces. Empty cells were not run.", figure)


def update_rank(analysis: Analysis, styles: Styles) -> Drawn | None:
    """Score against the effective rank of the trained update."""
    shown = _with(analysis, "rank")
    if len(shown) < 2:
        return None
    figure, axes = new_figure()
    _scatter(axes, analysis, styles, shown, "rank")
    axes.set_xscale("log")
    axes.set_xlabel("effective rank of the update, mean over measured layers")
    _finish(axes, analysis)
    return Drawn("update_rank", f"Score against how many directions the update uses. {INTERVALS}", figure)


def costs(analysis: Analysis, styles: Styles) -> Drawn | None:
    """Score against training speed and memory."""
    panels = [("tokens_per_second", "training tokens per second"), ("memory", "peak memory of the run, MB")]
    panels = [(name, label) for name, label in panels if len(_with(analysis, name)) > 1]
    if not panels:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.8 + 3.9 * len(panels), 3.8), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#e6e6e6", linewidth=0.7)
        _scatter(axes, analysis, styles, _with(analysis, name), name)
        axes.set_xlabel(label)
        _finish(axes, analysis, legend=name == panels[0][0])
    caption = f"Score beside cost. {INTERVALS} Runs that shared a machine are not clean measurements of time."
    return Drawn("costs", caption, figure)


# -------------------------------------------------------------------------------------------------------------- helpers


def _with(analysis: Analysis, cost: str) -> list[CellResult]:
    return [cell for cell in analysis.scored if cost in cell.costs]


def _mean(cell: CellResult) -> float:
    return cell.estimate.value if cell.estimate is not None else math.nan


def _scatter(axes: Any, analysis: Analysis, styles: Styles, shown: list[CellResult], cost: str) -> None:
    named: set[str] = set()
    for cell in shown:
        method = styles.method(cell)
        axes.errorbar(
            cell.costs[cost], _mean(cell), yerr=bars(cell), color=styles.colour(method), marker=styles.marker(method),
            markersize=5.5, linewidth=1, capsize=2, linestyle="none", label=None if method in named else method,
        )  # fmt: skip
        named.add(method)
    if len(shown) <= 16:
        for cell in shown:
            axes.annotate(
                size_label(cell), (cell.costs[cost], _mean(cell)), xytext=(5, 4), textcoords="offset points", fontsize=7
            )


def _finish(axes: Any, analysis: Analysis, legend: bool = True) -> None:
    for metric, (value, _) in analysis.base.items():
        if {metric} == {cell.metric for cell in analysis.scored}:
            axes.axhline(value, color="#999999", linewidth=0.9, linestyle=":", label="untouched backbone")
    axes.set_ylabel(score_axis(analysis))
    if legend:
        axes.legend(frameon=False, fontsize=8)
