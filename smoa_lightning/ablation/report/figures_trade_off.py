"""The figure of a trade-off: the cost against the other metric, with a curve for each method."""

from __future__ import annotations

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.drawing import BASE, NamedFigure, Sheet, above, mean
from smoa_lightning.ablation.report.styles import Styles
from smoa_lightning.ablation.report.ticks import scale
from smoa_lightning.ablation.report.trade_off import Curve
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.page.theme import COLOURS, INK, LINES, MARKERS, MUTED


def trade_off_curves(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw the curves of the trade-off, from the base model to the best point of each by the metric that is equal."""
    found = analysis.trade_off
    if found is None or not any(curve.cost is not None for curve in found.curves):
        return None
    drawn = {curve.name: _to_best(curve, found.plan["at"]) for curve in found.curves if curve.cost is not None}
    sheet = Sheet()
    (axes,) = sheet.panels
    every = [*found.base_models, *(place for places in drawn.values() for place in places)]
    scale(axes.xaxis, [x for x, _ in every], logarithmic=False)
    scale(axes.yaxis, [y for _, y in every], logarithmic=False)
    for number, (name, places) in enumerate(drawn.items()):
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)]}
        starts = found.base_models if len(found.base_models) == 1 else ()
        axes.plot(*zip(*starts, *places, strict=True), marker=MARKERS[number % len(MARKERS)], markersize=5,
                  linewidth=1.2, label=name, **style)  # fmt: skip
    for level in sorted({curve.level for curve in found.curves if curve.level is not None}):
        axes.axvline(level, color=INK, linewidth=0.9, linestyle="--", label="level")
    axes.plot(*zip(*found.base_models, strict=True), "o", markersize=7, color=MUTED, label=BASE, zorder=3)
    axes.set_xlabel(f"{found.plan['at']} on the report rows")
    above(axes, found.plan["cost"])
    sheet.legend("")
    along = found.plan["along"].rpartition(".")[2]
    caption = (
        f"{found.plan['cost']} against {found.plan['at']}: means over seeds. Each curve goes from the base model to "
        f"its best {found.plan['at']}, along {along}; points after the best are not drawn. The methods are compared at "
        "the dashed level."
    )
    return NamedFigure("trade_off", caption, sheet.figure)


def _to_best(curve: Curve, at: str) -> list[tuple[float, float]]:
    """Return the means of the points of a curve by both metrics, up to its best one."""
    places = [(curve.at[cell.name], mean(cell)) for cell in curve.cells]
    choose = max if METRICS[at].direction == "maximize" else min
    return places[: places.index(choose(places)) + 1]
