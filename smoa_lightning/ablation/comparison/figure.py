"""The figure of a comparison: the difference of each side from the baseline with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smoa_lightning.ablation.comparison.differences import Comparison
from smoa_lightning.ablation.comparison.tables import Compared
from smoa_lightning.ablation.report.cells import unit
from smoa_lightning.ablation.report.drawing import picture
from smoa_lightning.records.page.document import Picture
from smoa_lightning.records.page.theme import COLOURS, INK, PAPER

COLOUR = COLOURS[0]
LETTER = 0.075  # inches


def forest(found: Compared) -> Picture | None:
    """Draw the differences by the main metric; None if no difference has an interval."""
    drawn = [each for each in found.main if each.difference.low is not None and each.difference.high is not None]
    if not drawn:
        return None
    caption = (
        f"Differences from {found.sides[0].label} by {found.metric}. Bars are 95 % intervals. A filled circle is an "
        "established difference (adjusted p below 0.05), an open diamond is not."
    )
    return picture("forest", caption, lambda: _forest(found, drawn))


def _forest(found: Compared, drawn: Sequence[Comparison]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    scale, name = unit(found.metric)
    labels = LETTER * max(len(each.side) for each in drawn) + 0.25
    width, height = labels + 3.2, 0.34 * len(drawn) + 0.75
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    figure.subplots_adjust(left=labels / width, right=0.98, bottom=0.5 / height, top=1 - 0.1 / height)
    for place, each in enumerate(drawn):
        d = each.difference
        assert d.low is not None
        assert d.high is not None
        axes.plot([d.low * scale, d.high * scale], [place, place], color=COLOUR, linewidth=1.6)
        axes.plot([d.value * scale], [place], "o" if each.verdict.established else "D", color=COLOUR, markersize=6,
                  markerfacecolor=COLOUR if each.verdict.established else PAPER)  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(drawn)), [each.side for each in drawn])
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"{found.metric} minus that of {found.sides[0].label}" + (f", {name}" if name else ""))
    return figure
