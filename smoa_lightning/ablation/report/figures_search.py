"""The figure of a search: how a cell's score depends on the searched settings."""

from __future__ import annotations

import math
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.drawing import LINES, NamedFigure, Styles, arrange, logarithmic, new_figure
from smoa_lightning.ablation.report.searches import short

FIRST = ("lr",)  # the setting of the first panel, if it was searched


def sensitivity(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw the score of each trial against the value of a parameter: one panel each, the learning rate first."""
    search = analysis.study.description.get("search")
    if search is None or not analysis.study.searches:
        return None
    keys = [key for key in search["parameters"] if _numbers(analysis, key)]
    keys = sorted(keys, key=lambda key: short(key) not in FIRST)[:3]
    if not keys:
        return None
    figure, panels = new_figure(5.0, 3.9, len(keys))
    many = len({styles.method(cell) for cell in analysis.cells}) < len(analysis.cells)
    for axes, key in zip(panels, keys, strict=True):
        for number, cell in enumerate(analysis.cells):
            points = _points(analysis, cell.name, key)
            method = styles.method(cell)
            if points:
                line = LINES[number % len(LINES) if many else 0]
                axes.plot(
                    *zip(*points, strict=True), linestyle=line, color=styles.colour(method),
                    marker=styles.marker(method), markersize=4.5, linewidth=1, label=cell.name if many else method,
                )  # fmt: skip
        if _logarithmic(search["parameters"][key]):
            drawn = [x for cell in analysis.cells for x, _ in _points(analysis, cell.name, key)]
            logarithmic(axes.xaxis, drawn, search["parameters"][key].get("choices", ()))
        axes.set_xlabel(short(key) if short(key) != "lr" else "learning rate")
    metric = next(iter(analysis.study.searches.values()))["metric"]
    figure.axes[0].set_ylabel(f"{metric} on held-out training rows")
    if _spread(analysis):
        for axes in figure.axes:
            logarithmic(axes.yaxis, _values(analysis))
    arrange(figure)
    caption = "Sensitivity to the searched settings. Each point is a trial; the other searched settings vary too. "
    caption += "Pruned and failed trials are left out."
    return NamedFigure("sensitivity", caption, figure)


def _points(analysis: Analysis, cell: str, key: str) -> list[tuple[float, float]]:
    search = analysis.study.searches.get(cell, {"trials": []})
    return sorted(
        (float(trial["parameters"][key]), float(trial["value"]))
        for trial in search["trials"]
        if trial["state"] == "COMPLETE" and key in trial["parameters"] and math.isfinite(trial["value"])
    )


def _numbers(analysis: Analysis, key: str) -> bool:
    values: list[Any] = [
        trial["parameters"][key]
        for search in analysis.study.searches.values()
        for trial in search["trials"]
        if key in trial["parameters"]
    ]
    return len(set(values)) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _logarithmic(parameter: Any) -> bool:
    """Whether a parameter needs a logarithmic axis: its range is logarithmic, or its choices differ by more than 3x."""
    if "choices" in parameter:
        low, high = min(parameter["choices"]), max(parameter["choices"])
        return bool(low > 0 and high / low > 3)
    return bool(parameter.get("log"))


def _values(analysis: Analysis) -> list[float]:
    return [
        float(trial["value"])
        for search in analysis.study.searches.values()
        for trial in search["trials"]
        if trial["state"] == "COMPLETE" and trial["value"] is not None and math.isfinite(trial["value"])
    ]


def _spread(analysis: Analysis) -> bool:
    """Whether scores vary so much that a few diverged trials would hide all others."""
    values = _values(analysis)
    return bool(values) and min(values) > 0 and max(values) / min(values) > 3
