"""The figure of a search: how a cell's score depends on the searched settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.dimensions import TITLES
from smoa_lightning.ablation.report.drawing import NamedFigure, Sheet, above
from smoa_lightning.ablation.report.searches import best_trial, short
from smoa_lightning.ablation.report.styles import Styles, short_name
from smoa_lightning.ablation.report.ticks import scale
from smoa_lightning.records.page.theme import LINES

MOST_PANELS, MOST_CELLS = 3, 12
SPREAD = 3  # largest over smallest score, above which the axis is logarithmic: a few trials diverged


def sensitivity(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw the score of each trial against the value of a parameter: one panel each, the learning rate first."""
    search = analysis.study.description.get("search")
    if search is None or not analysis.study.searches:
        return None
    order = list(TITLES)
    keys = [key for key in search["parameters"] if _numbers(analysis, key)]
    keys = sorted(keys, key=lambda key: order.index(short(key)) if short(key) in order else len(order))[:MOST_PANELS]
    cells = _shown(analysis)
    if not keys or not cells:
        return None
    sheet = Sheet([2.4] * len(keys))
    labels = {cell.name: " / ".join(cell.labels[axis] for axis in styles.varied) or cell.name for cell in cells}
    scores = [y for key in keys for cell in cells for _, y in _points(analysis, cell, key)]
    metric = ", ".join(sorted({analysis.study.searches[cell.name]["metric"] for cell in cells}))
    for axes, key in zip(sheet.panels, keys, strict=True):
        parameter = search["parameters"][key]
        values = sorted({x for cell in cells for x, _ in _points(analysis, cell, key)})
        if not values:
            continue
        choices = sorted(parameter.get("choices", ()))
        scale(axes.xaxis, values, choices, _logarithmic(parameter))
        scale(axes.yaxis, scores, logarithmic=min(scores) > 0 and max(scores) / min(scores) > SPREAD)
        for number, cell in enumerate(cells):
            _draw(axes, _points(analysis, cell, key), styles.method(cell), labels[cell.name], number, styles)
        axes.set_xlabel(TITLES.get(short(key), short(key)))
        above(axes, f"{metric} on held-out training rows")
    sheet.legend(" / ".join(map(short_name, styles.varied)))
    caption = "Sensitivity to the searched settings. Each point is a trial"
    caption += "; the other searched settings vary too" if len(search["parameters"]) > 1 else ""
    caption += ". Pruned and failed trials are left out."
    if len(cells) < len(analysis.study.searches):
        caption += f" The {MOST_CELLS} cells with the best trials are shown; trials.csv has all."
    return NamedFigure("sensitivity", caption, sheet.figure)


def _draw(
    axes: Any, points: Sequence[tuple[float, float]], method: str, label: str, number: int, styles: Styles
) -> None:
    if points:
        axes.plot(
            *zip(*points, strict=True), linestyle=LINES[number % len(LINES)], color=styles.colour(method),
            marker=styles.marker(method), markersize=4.5, linewidth=1.1, label=label,
        )  # fmt: skip


def _shown(analysis: Analysis) -> list[CellResult]:
    """Return the cells with the best trials, in the order of the study."""
    best: dict[str, float] = {}
    for cell, search in analysis.study.searches.items():
        trial: Mapping[str, Any] | None = best_trial(search)
        if trial is not None:
            best[cell] = (-1 if search["direction"] == "maximize" else 1) * float(trial["value"])
    kept = sorted(best, key=lambda cell: best[cell])[:MOST_CELLS]
    return [cell for cell in analysis.cells if cell.name in kept]


def _points(analysis: Analysis, cell: CellResult, key: str) -> list[tuple[float, float]]:
    search = analysis.study.searches.get(cell.name, {"trials": []})
    return sorted(
        (float(trial["parameters"][key]), float(trial["value"]))
        for trial in search["trials"]
        if trial["state"] == "COMPLETE" and key in trial["parameters"] and math.isfinite(trial["value"])
    )


def _numbers(analysis: Analysis, key: str) -> bool:
    drawn: list[Any] = [
        trial["parameters"][key]
        for search in analysis.study.searches.values()
        for trial in search["trials"]
        if key in trial["parameters"]
    ]
    values = [*drawn, *analysis.study.description["search"]["parameters"][key].get("choices", ())]
    return len(set(drawn)) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _logarithmic(parameter: Mapping[str, Any]) -> bool:
    """Whether a parameter needs a logarithmic axis: its range is logarithmic, or its choices differ by more than 3x."""
    if "choices" in parameter:
        low, high = min(parameter["choices"]), max(parameter["choices"])
        return bool(low > 0 and high / low > 3)
    return bool(parameter.get("log"))
