"""Common parts of all figures of a report: the sheet with its panels and legend, and how a figure is saved.

Every figure is one column of a paper wide. So it is readable on a telephone, and two fit side by side on a laptop.
"""

from __future__ import annotations

import importlib
import io
import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.ticks import label_inches, scale
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.page.document import Picture
from smoa_lightning.records.page.theme import MUTED, SETTINGS

WIDTH = 4.5  # inches of every figure
DPI = 192  # of a PNG: two pixels for each CSS pixel of the page
LEFT, RIGHT, TOP, BOTTOM = 0.66, 0.16, 0.36, 0.5  # margins of a panel in inches
LEGEND_SIZE, LEGEND_LINE, HANDLE = 8.5, 0.178, 0.42  # points of a legend's text, inches of its line and its handle
MOST_ENTRIES, LETTERS = 24, 54  # of a legend, and of a line of an entry; with more entries there is no legend
BASE, FRONT = "base model", "established front"
LAST = (BASE, FRONT)  # the last entries of a legend
METADATA: dict[str, dict[str, Any]] = {  # without dates, so that the same numbers give the same bytes
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
INTERVALS = (
    "Points are means over seeds; bars are 95 % intervals over seeds. A point without a bar has no interval: it has "
    "one seed, or all of its seeds have the same score."
)


@dataclass(frozen=True)
class NamedFigure:
    """A figure with its name and caption.

    Args:
        name: Name of its files.
        caption: Text below the figure.
        figure: A ``matplotlib.figure.Figure``.
    """

    name: str
    caption: str
    figure: Any


class Sheet:
    """A figure with panels below each other, without a window or global state.

    Args:
        heights: Height of each panel in inches, without its margins.
        left: Space to the left of each panel, in inches.
        right: Space to the right of each panel.
        top: Space above each panel.
    """

    def __init__(
        self, heights: Sequence[float] = (2.6,), left: float = LEFT, right: float = RIGHT, top: float = TOP
    ) -> None:
        from matplotlib.figure import Figure

        self.figure: Any = Figure(figsize=(WIDTH, sum(heights) + (top + BOTTOM) * len(heights)))
        self.left = left
        self.panels: list[Any] = []
        self._places: list[tuple[Any, tuple[float, float, float, float]]] = []
        y = top
        for height in heights:
            axes = self.add((left, y, WIDTH - left - right, height))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(True)
            axes.set_axisbelow(True)
            self.panels.append(axes)
            y += height + BOTTOM + top

    def add(self, place: tuple[float, float, float, float]) -> Any:
        """Add axes at a place: left edge, distance from the top, width and height in inches."""
        axes = self.figure.add_axes(self._fractions(place))
        self._places.append((axes, place))
        return axes

    def place(self, panel: int) -> tuple[float, float, float, float]:
        """Return the place of a panel: left edge, distance from the top, width and height in inches."""
        return self._places[panel][1]

    def _fractions(self, place: tuple[float, float, float, float]) -> list[float]:
        width, height = self.figure.get_size_inches()
        left, top, wide, high = place
        return [left / width, 1 - (top + high) / height, wide / width, high / height]

    def legend(self, title: str, labelled: Any = None) -> None:
        """Put a legend with a title below all panels, where it hides nothing.

        Args:
            title: Names of the axes that the entries are values of.
            labelled: The panel with the handles; by default the first.
        """
        handles, labels = (labelled or self.panels[0]).get_legend_handles_labels()
        if not 0 < len(labels) <= MOST_ENTRIES:
            return
        entries = dict(zip(labels, handles, strict=True))
        entries = {label: entries[label] for label in sorted(entries, key=lambda label: label in LAST)}
        texts = [textwrap.fill(label, LETTERS, break_on_hyphens=False) for label in entries]
        longest = max(label_inches(line, LEGEND_SIZE) for text in texts for line in text.splitlines())
        columns = max(1, int((WIDTH - 0.1) / (HANDLE + 0.1 + longest)))
        rows = math.ceil(len(texts) / columns)
        columns = math.ceil(len(texts) / rows)
        lines = max(sum(text.count("\n") + 1 for text in texts[n : n + rows]) for n in range(0, len(texts), rows))
        height = self.figure.get_size_inches()[1] + LEGEND_LINE * (lines + bool(title)) + 0.08
        self.figure.set_size_inches(WIDTH, height)
        for axes, place in self._places:
            axes.set_position(self._fractions(place))
        self.figure.legend(
            list(entries.values()), texts, title=title or None, loc="lower left", ncols=columns, frameon=False,
            bbox_to_anchor=(0.1 / WIDTH, 0.02 / height), fontsize=LEGEND_SIZE, title_fontsize=LEGEND_SIZE,
            alignment="left", borderpad=0, borderaxespad=0, labelspacing=0.35, handlelength=2.2, columnspacing=1.2,
        )  # fmt: skip


def save(
    makers: Sequence[Callable[[], NamedFigure | None]], folder: Path, formats: Collection[str] = ("svg",)
) -> list[Picture]:
    """Draw figures, write each in one atomic step, and return them for the page.

    The same numbers give the same bytes.

    Args:
        makers: Functions that each draw a figure, or return ``None`` without data.
        folder: Folder of the files.
        formats: Formats of the files: ``svg``, ``pdf``, ``png``. The page needs the SVG in any case.
    """
    import matplotlib

    _import_without_docstrings()
    with matplotlib.rc_context(SETTINGS):
        pictures = [_saved(make(), folder, formats) for make in makers]
    return [picture for picture in pictures if picture is not None]


def _import_without_docstrings() -> None:
    """Import the figures of matplotlib without texts on the properties of its classes, 0.4 of this import."""
    from matplotlib import artist as artists

    listed, artists.kwdoc = artists.kwdoc, lambda artist: ""
    try:
        importlib.import_module("matplotlib.figure")
    finally:
        artists.kwdoc = listed


def picture(name: str, caption: str, draw: Callable[[], Any]) -> Picture:
    """Return a figure for a page, in the colours and fonts of all figures.

    Args:
        name: Name of the figure.
        caption: Text below it.
        draw: Returns a ``matplotlib.figure.Figure``.
    """
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        return _picture(NamedFigure(name, caption, draw()))


def _picture(drawn: NamedFigure) -> Picture:
    text = io.StringIO()
    drawn.figure.savefig(text, format="svg", metadata=METADATA["svg"])
    return Picture(drawn.name, drawn.caption, text.getvalue())


def _saved(drawn: NamedFigure | None, folder: Path, formats: Collection[str]) -> Picture | None:
    if drawn is None:
        return None
    shown = _picture(drawn)
    for form in METADATA:
        if form not in formats:  # a file of an earlier report may show other numbers
            (folder / f"{drawn.name}.{form}").unlink(missing_ok=True)
            continue
        with replacing(folder / f"{drawn.name}.{form}") as temporary:
            if form == "svg":
                temporary.write_text(shown.svg, encoding="utf-8")
            else:
                drawn.figure.savefig(temporary, format=form, dpi=DPI, metadata=METADATA[form])
    return shown


def points(axes: Any, x: Sequence[float], cells: Sequence[CellResult], **style: Any) -> None:
    """Draw means of cells with their intervals; a cell without an interval has no bar."""
    known = [
        (place, cell.estimate.low, cell.estimate.high)
        for place, cell in zip(x, cells, strict=True)
        if cell.estimate is not None and cell.estimate.low is not None and cell.estimate.high is not None
    ]
    if known:
        axes.vlines(*zip(*known, strict=True), color=style["color"], linewidth=1)
    axes.plot(x, [mean(cell) for cell in cells], markersize=5, linewidth=1.2, **style)


def mean(cell: CellResult) -> float:
    """Return the mean of a cell; nan without a run."""
    return cell.estimate.value if cell.estimate is not None else math.nan


def score_scale(axes: Any, analysis: Analysis, cells: Sequence[CellResult]) -> None:
    """Give the vertical axis its scale and title, and draw the score of the base model."""
    ends = [mean(cell) for cell in cells]
    for cell in cells:
        if cell.estimate is not None and cell.estimate.low is not None and cell.estimate.high is not None:
            ends += [cell.estimate.low, cell.estimate.high]
    if len(analysis.base_models) == 1 and len(analysis.base_models[0][1]) == len(analysis.cells):
        value = analysis.base_models[0][0].score
        axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)), label=BASE)
        ends.append(value)
    share = all(cell.metric in METRICS and METRICS[cell.metric].unit == "share" for cell in cells)
    scale(axes.yaxis, ends, logarithmic=False if share else None)
    above(axes, score_title(analysis))


def above(axes: Any, title: str) -> None:
    """Write the title of the vertical axis above it, where it needs no space at the side and is not rotated."""
    axes.set_title(title, loc="left", fontsize=SETTINGS["font.size"], x=0.12 - axes.get_position().x0, pad=7)


def score_title(analysis: Analysis) -> str:
    """Return the title of an axis of scores."""
    better = "higher" if analysis.direction == "maximize" else "lower"
    metrics = sorted({cell.metric for cell in analysis.scored})
    return f"{', '.join(metrics)} on the report rows ({better} is better)"
