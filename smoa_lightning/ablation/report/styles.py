"""Colours, markers and names of the methods of a study, the same in all figures."""

from __future__ import annotations

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.dimensions import SHORT, Dimension, dimensions, varied_axes
from smoa_lightning.records.page.theme import COLOURS, LINES, MARKERS

RANK, SUBSPACES = "model.adapter.init_args.r", "model.adapter.init_args.num_subspaces"


class Styles:
    """Colours, markers and names of the methods: the labels of all axes that are not numeric.

    Args:
        analysis: The numbers.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.dimensions = dimensions(analysis)
        numeric = {axis for dimension in self.dimensions for axis in dimension.tied}
        self.varied = varied_axes(analysis.cells)
        self.words = [axis for axis in self.varied if axis not in numeric]
        names = dict.fromkeys(self.method(cell) for cell in analysis.cells)
        self._place = {name: number for number, name in enumerate(names)}

    def method(self, cell: CellResult) -> str:
        """Return the labels of a cell on the axes that are not numeric."""
        return " / ".join(cell.labels[axis] for axis in self.words) or "all cells"

    @property
    def title(self) -> str:
        """The title of a legend of methods: the names of their axes."""
        return " / ".join(map(short_name, self.words))

    @property
    def methods(self) -> list[str]:
        """All methods in the order of the study."""
        return list(self._place)

    def others(self, *drawn: Dimension) -> list[str]:
        """Return the numeric axes that separate curves or panels, without those that are drawn."""
        hidden = {axis for dimension in drawn for axis in dimension.tied}
        return [axis for axis in self.varied if axis not in hidden and axis not in self.words]

    def colour(self, method: str) -> str:
        """Return the colour of a method."""
        return COLOURS[self._place[method] % len(COLOURS)]

    def marker(self, method: str) -> str:
        """Return the marker of a method."""
        place = self._place[method]  # from the ninth method on, colours repeat with different markers
        return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]

    def line(self, method: str) -> str:
        """Return the line style of a method."""
        return LINES[self._place[method] % len(LINES)]


def short_name(axis: str) -> str:
    """Return the short name of an axis.

    >>> short_name("model.adapter.init_args.num_subspaces"), short_name("lr")
    ('K', 'lr')
    """
    word = axis.rpartition(".")[2]
    return SHORT.get(word, word)


def size_label(cell: CellResult) -> str:
    """Return rank and number of subspaces of a cell; a size that the cell does not have is left out."""
    parts = [(name, cell.setting(key)) for name, key in (("r", RANK), ("K", SUBSPACES))]
    return " ".join(f"{name}={value}" for name, value in parts if isinstance(value, int))
