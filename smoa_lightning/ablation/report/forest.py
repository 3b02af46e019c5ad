"""The first figure of a report: differences with their intervals, one row each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult, unit
from smoa_lightning.ablation.report.comparisons import BASE_MODEL, Comparison
from smoa_lightning.ablation.report.drawing import WIDTH, NamedFigure, Sheet, score_title
from smoa_lightning.ablation.report.estimates import no_difference_interval, no_interval
from smoa_lightning.ablation.report.styles import Styles
from smoa_lightning.ablation.report.ticks import scale
from smoa_lightning.records.page.theme import COLOURS, INK, MUTED, PAPER

MOST = 24  # rows
ROW, LINE, SIZE = 0.4, 0.15, 8.5  # inches of a row and of a line of its label, points of the label
LETTERS = 60  # of a line of the label
EDGE = 0.22  # inches to the left and to the right of the panel

Row = tuple[str, float, float | None, float | None, bool, str]  # label, value, low, high, whether marked, reason


def forest(analysis: Analysis, styles: Styles) -> NamedFigure | None:
    """Draw the differences from the baseline; without a baseline those from the base model, else the means."""
    if analysis.comparisons:
        return _differences(analysis.comparisons)
    if analysis.gains:
        return _differences(analysis.gains)
    return _means(analysis)


def _differences(comparisons: Sequence[Comparison]) -> NamedFigure:
    shown = sorted(comparisons, key=lambda c: (not c.verdict.established, -abs(c.difference.value)))[:MOST]
    shown = [c for c in comparisons if c in shown]
    baselines = list(dict.fromkeys(c.baseline for c in shown))
    base, table = ("base model", "gains") if baselines[0] == BASE_MODEL else ("baseline", "differences")
    metrics = sorted({c.metric for c in shown})
    factor, word = unit(shown[0].metric) if len(set(map(unit, metrics))) == 1 else (1.0, "")
    rows: list[Row] = []
    for c in shown:
        d, label = c.interval, c.cell if len(baselines) == 1 else f"{c.cell}  −  {c.baseline}"
        low, high = (None if end is None else factor * end for end in (d.low, d.high))
        rows.append((label, factor * d.value, low, high, c.verdict.established, no_difference_interval(d)))
    zero = "base model before training" if base != "baseline" else f"baseline {baselines[0]}"
    if len(baselines) > 1:
        zero = "the cell's baseline, named after the minus sign"
    title = f"{', '.join(metrics)}, difference from the {base}{f' in {word}' if word else ''}"
    figure = _drawn(rows, title, f"0 = {zero}")
    over = "seeds and items" if any(c.difference.n_items for c in shown) else "seeds"
    caption = f"Differences from the {zero.removeprefix('the ')}, with 95 % intervals over {over}, "
    caption += "corrected for the number of comparisons. Thick, filled: established. Hollow: not established."
    if len(comparisons) > MOST:
        caption += f" {MOST} of {len(comparisons)} are shown: those that are established, then the largest; {table}.csv"
        caption += " has all."
    return NamedFigure("forest", caption, figure)


def _means(analysis: Analysis) -> NamedFigure | None:
    if len({cell.metric for cell in analysis.scored}) > 1:
        return None
    shown = _best(analysis)
    rows: list[Row] = []
    for cell in shown:
        mean = cell.estimate
        assert mean is not None
        rows.append((cell.name, mean.value, mean.low, mean.high, True, no_interval(cell)))
    why = "No two cells can be compared yet" if analysis.incomparable else "The study has no baseline"
    caption = f"Means over seeds, with 95 % intervals over seeds. {why}, so no difference was tested."
    if len(analysis.scored) > MOST:
        caption += f" The {MOST} best are shown; cells.csv has all."
    return NamedFigure("forest", caption, _drawn(rows, score_title(analysis), ""))


def _best(analysis: Analysis) -> list[CellResult]:
    sign = -1 if analysis.direction == "maximize" else 1
    ordered = sorted(analysis.scored, key=lambda cell: sign * (cell.estimate.value if cell.estimate else 0.0))[:MOST]
    return [cell for cell in analysis.scored if cell in ordered]


def _drawn(rows: Sequence[Row], title: str, zero: str) -> Any:
    """Draw the rows; the label of a row is above its interval, so long names need no margin.

    Args:
        rows: The rows.
        title: Title of the horizontal axis.
        zero: What the line at zero is; empty for no line.
    """
    labels = [_wrapped(f"{row[0]} ({row[5]})" if row[5] else row[0]) for row in rows]
    head = _wrapped(zero)
    tops, y = [], LINE * (head.count("\n") + 1) + 0.08 if zero else 0.0  # inches from the top to each label
    for label in labels:
        tops.append(y)
        y += ROW + LINE * label.count("\n")
    sheet = Sheet((y,), left=EDGE, right=EDGE, top=0.12)
    (axes,) = sheet.panels
    ends = [end for row in rows for end in row[1:4] if end is not None]
    scale(axes.xaxis, [*ends, 0.0] if zero else ends, logarithmic=False)
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    if zero:
        axes.axvline(0, color=INK, linewidth=0.9)
        _text(axes, 0.02, head, weight="bold")
    for (_, value, low, high, marked, _), label, top in zip(rows, labels, tops, strict=True):
        middle = top + LINE * label.count("\n") + 0.27
        colour = COLOURS[0] if marked else MUTED
        if low is not None and high is not None:
            axes.hlines(middle, low, high, color=colour, linewidth=2.2 if marked else 1.2)
        axes.plot([value], [middle], "o", markersize=5.5, color=colour, markerfacecolor=colour if marked else "none")
        _text(axes, top + 0.04, label)
    axes.set_xlabel(title)
    return sheet.figure


def _text(axes: Any, top: float, text: str, weight: str = "normal") -> None:
    """Write a text at the left side, on the colour of the paper, so that no line of the figure crosses it."""
    paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
    place = {"transform": axes.get_yaxis_transform(), "va": "top", "bbox": paper}
    axes.text(0.0, top, text, fontsize=SIZE, weight=weight, **place)


def _wrapped(label: str) -> str:
    """Return a long label in lines that break after commas where possible."""
    spaced = label.replace(",", ", ")
    lines = textwrap.wrap(spaced, LETTERS, break_on_hyphens=False) or [""]
    return "\n".join(line.replace(", ", ",") for line in lines)


assert WIDTH - 2 * EDGE > 4  # LETTERS of a label fit on a line
