"""Common parts of all figures of a report: colours, axes, and how a figure is saved."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.records.page.document import Picture

# Okabe and Ito's colours, which people with any colour vision can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
RANK, SUBSPACES = "model.adapter.init_args.r", "model.adapter.init_args.num_subspaces"
DPI = 110
LEFT, RIGHT, BOTTOM, TOP = 0.8, 0.15, 0.55, 0.2  # margins in inches
LEGEND_LINE, LEGEND_LETTER = 0.45, 0.067  # inches of a legend's line and of each letter
NARROW, WIDE = 3, 500  # largest over smallest value: below NARROW an axis is linear, above WIDE only powers of ten
MOST_ENTRIES = 24  # of a legend; with more entries there is no legend


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


def new_figure(width: float = 6.0, height: float = 4.0, panels: int = 1) -> tuple[Any, list[Any]]:
    """Return a figure with panels side by side, without a window or global state; :func:`arrange` completes it.

    Args:
        width: Width of a panel with its labels, in inches.
        height: Height of the figure, in inches.
        panels: Number of panels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, height))
    all_axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
    return figure, all_axes


def arrange(figure: Any, left: float = LEFT, right: float = RIGHT, top: float = TOP) -> None:
    """Set the margins, and put the legend to the right of all panels, where it hides nothing.

    Margins are fixed, since computing them from the labels takes longer than drawing the figure.

    Args:
        figure: The complete figure; its first panel has the handles of the legend.
        left: Space to the left of each panel, in inches.
        right: Space to the right of the last panel, without the legend.
        top: Space above the panels.
    """
    width, height = figure.get_size_inches()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if 0 < len(labels) <= MOST_ENTRIES:
        figure.axes[-1].legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0,
                               frameon=False, fontsize=8)  # fmt: skip
        right += LEGEND_LINE + LEGEND_LETTER * max(map(len, labels))
    whole, panels = width + right, len(figure.axes)
    figure.set_size_inches(whole, height)
    inner = (width - left * panels) / panels
    figure.subplots_adjust(
        left=left / whole, right=1 - right / whole, bottom=BOTTOM / height, top=1 - top / height, wspace=left / inner
    )


def logarithmic(axis: Any, values: Sequence[float], ticks: Sequence[float] = ()) -> None:
    """Make an axis of positive values logarithmic, with plain numbers as labels; a narrow range stays linear.

    Matplotlib's own labels, powers of ten, are formulas, which take longer to set than the rest of a figure.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        values: The drawn values.
        ticks: Values with a label, instead of round numbers.
    """
    low, high = min(values), max(values)
    if high < NARROW * low:
        return
    places = list(ticks) or log_ticks(low / 1.15, high * 1.15)
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_ticks(places, [plain(place) for place in places])
    axis.set_ticks([], minor=True)
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low / 1.15, high * 1.15)


def log_ticks(low: float, high: float) -> list[float]:
    """Return the round numbers of a range: powers of ten; unless the range is wide, also 2 and 5 times these.

    >>> log_ticks(300, 4000), log_ticks(0.0008, 20)
    ([500.0, 1000.0, 2000.0], [0.001, 0.01, 0.1, 1.0, 10.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if high / low > WIDE else (1, 2, 5)
    places = [float(f"{step}e{power}") for power in powers for step in steps]
    return [place for place in places if low <= place <= high]


def plain(value: float) -> str:
    """Return a round number as a label.

    >>> plain(2e-4), plain(0.5), plain(50000.0), plain(2e6)
    ('0.0002', '0.5', '50k', '2M')
    """
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:.10f}".rstrip("0").rstrip(".") if value < 1 else f"{value:g}"


def save(makers: Sequence[Callable[[], NamedFigure | None]], folder: Path) -> list[Picture]:
    """Draw figures, write each as SVG and PNG in one atomic step, and return them for the page.

    The same numbers give the same bytes.

    Args:
        makers: Functions that each draw a figure, or return ``None`` without data.
        folder: Folder of the files.
    """
    import matplotlib
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg

    with matplotlib.rc_context({"svg.hashsalt": "smoa_lightning", "font.size": 9.5, "svg.fonttype": "none"}):
        pictures = [_saved(make(), folder) for make in makers]
    return [picture for picture in pictures if picture is not None]


def _saved(drawn: NamedFigure | None, folder: Path) -> Picture | None:
    if drawn is None:
        return None
    text = io.StringIO()
    drawn.figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    with replacing(folder / f"{drawn.name}.svg") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    with replacing(folder / f"{drawn.name}.png") as temporary:
        drawn.figure.savefig(
            temporary, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 4}
        )
    return Picture(drawn.name, drawn.caption, text.getvalue())


def swept(cell: CellResult, analysis: Analysis) -> dict[str, str]:
    """Return the labels of a cell without the axes for rank, number of subspaces and alpha."""
    sizes = {axis for axis in cell.labels if axis.rpartition(".")[2] in ("r", "num_subspaces", "alpha")}
    return {axis: label for axis, label in cell.labels.items() if axis not in sizes}


class Styles:
    """Colours and markers of the methods, the same in all figures.

    Args:
        analysis: The numbers.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        names = dict.fromkeys(self.method(cell) for cell in analysis.cells)
        self._place = {name: number for number, name in enumerate(names)}

    def method(self, cell: CellResult) -> str:
        """Return the name of a cell without rank and number of subspaces."""
        labels = swept(cell, self.analysis)
        varied = {axis: text for axis, text in labels.items() if self._varies(axis)}
        return ", ".join(f"{text}" if len(varied) == 1 else f"{axis} {text}" for axis, text in varied.items()) or "all"

    def _varies(self, axis: str) -> bool:
        return len({cell.labels[axis] for cell in self.analysis.cells}) > 1

    @property
    def methods(self) -> list[str]:
        """All methods in the order of the study."""
        return list(self._place)

    def colour(self, method: str) -> str:
        """Return the colour of a method."""
        return COLOURS[self._place[method] % len(COLOURS)]

    def marker(self, method: str) -> str:
        """Return the marker of a method."""
        place = self._place[method]  # from the ninth method on, colours repeat with different markers
        return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]


def size_label(cell: CellResult) -> str:
    """Return rank and number of subspaces of a cell; a size that the cell does not have is left out."""
    parts = [(name, cell.setting(key)) for name, key in (("r", RANK), ("K", SUBSPACES))]
    return " ".join(f"{name}={value}" for name, value in parts if isinstance(value, int))


def bars(cells: Sequence[CellResult]) -> list[list[float]]:
    """Return the lengths of the error bars of cells, below and above; nan for a cell without an interval."""
    below, above = [], []
    for cell in cells:
        mean = cell.estimate
        known = mean is not None and mean.low is not None and mean.high is not None
        below.append(mean.value - mean.low if known else math.nan)  # type: ignore[union-attr, operator]
        above.append(mean.high - mean.value if known else math.nan)  # type: ignore[union-attr, operator]
    return [below, above]


def score_axis(analysis: Analysis) -> str:
    """Return the label of an axis of scores."""
    better = "higher" if analysis.direction == "maximize" else "lower"
    metrics = sorted({cell.metric for cell in analysis.scored})
    return f"{', '.join(metrics)} on the report rows ({better} is better)"
