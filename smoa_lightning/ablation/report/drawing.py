"""What all figures of a report share: colours, axes, and how a figure becomes files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis, CellResult
from smoa_lightning.ablation.report.document import Picture
from smoa_lightning.files import replacing

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RANK, SUBSPACES = "model.adapter.init_args.r", "model.adapter.init_args.num_subspaces"
DPI = 110


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Args:
        name: Of its files.
        caption: What it shows.
        figure: A ``matplotlib.figure.Figure``.
    """

    name: str
    caption: str
    figure: Any


def new_figure(width: float = 6.4, height: float = 4.0) -> tuple[Any, Any]:
    """Return a figure with one pair of axes, without a window or a state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def save(drawn: Sequence[Drawn], folder: Path) -> list[Picture]:
    """Write each figure as SVG and PNG, whole or not at all, and return them for the page.

    The same numbers give the same bytes.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    pictures = []
    with matplotlib.rc_context({"svg.hashsalt": "smoa_lightning", "font.size": 9.5, "svg.fonttype": "none"}):
        for each in drawn:
            text = io.StringIO()
            each.figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            with replacing(folder / f"{each.name}.svg") as temporary:
                temporary.write_text(text.getvalue(), encoding="utf-8")
            with replacing(folder / f"{each.name}.png") as temporary:
                FigureCanvasAgg(each.figure)
                each.figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
            pictures.append(Picture(each.name, each.caption, text.getvalue()))
    return pictures


def swept(cell: CellResult, analysis: Analysis) -> dict[str, str]:
    """Return the labels of a cell without the axes that are rank or number of subspaces."""
    sizes = {axis for axis in cell.labels if axis.rpartition(".")[2] in ("r", "num_subspaces", "alpha")}
    return {axis: label for axis, label in cell.labels.items() if axis not in sizes}


class Styles:
    """Colour and marker of each method, the same in all figures.

    Args:
        analysis: The numbers.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        names = dict.fromkeys(self.method(cell) for cell in analysis.cells)
        self._place = {name: number for number, name in enumerate(names)}

    def method(self, cell: CellResult) -> str:
        """Return what a cell is called when rank and number of subspaces are left out."""
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
        return MARKERS[self._place[method] % len(MARKERS)]


def size_label(cell: CellResult) -> str:
    """Return rank and number of subspaces of a cell, as far as it has them."""
    parts = [(name, cell.setting(key)) for name, key in (("r", RANK), ("K", SUBSPACES))]
    return " ".join(f"{name}={value}" for name, value in parts if isinstance(value, int))


def bars(cell: CellResult) -> list[list[float]] | None:
    """Return the lengths of a cell's error bars, below and above."""
    estimate = cell.estimate
    if estimate is None or estimate.low is None or estimate.high is None:
        return None
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]


def score_axis(analysis: Analysis) -> str:
    """Return the label of an axis of scores."""
    better = "higher" if analysis.direction == "maximize" else "lower"
    metrics = sorted({cell.metric for cell in analysis.scored})
    return f"{', '.join(metrics)} on the report rows ({better} is better)"
