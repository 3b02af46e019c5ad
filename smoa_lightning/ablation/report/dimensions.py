"""The numeric axes of a study, which figures draw a score against: the learning rate first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult

# Last word of an axis -> its title in figures. These axes come first, in this order.
TITLES = {"lr": "learning rate", "r": "rank r", "num_subspaces": "number of subspaces K", "alpha": "alpha"}
SHORT = {"num_subspaces": "K"}
FILES = {"lr": "learning_rate", "r": "rank", "num_subspaces": "subspaces"}  # names of files; others: the last word


@dataclass(frozen=True)
class Dimension:
    """A numeric axis of a study.

    Args:
        axis: Name of the axis.
        numbers: Label -> number.
        tied: The axes that change together with this one, and itself. They do not separate curves.
    """

    axis: str
    numbers: Mapping[str, float]
    tied: frozenset[str]

    @property
    def word(self) -> str:
        """The last word of the axis."""
        return self.axis.rpartition(".")[2]

    @property
    def title(self) -> str:
        """The title of the axis in figures."""
        return TITLES.get(self.word, self.word)

    @property
    def file(self) -> str:
        """The name of the axis in the names of files."""
        return FILES.get(self.word, "".join(c if c.isalnum() else "_" for c in self.word))

    def of(self, cell: CellResult) -> float:
        """Return the value of a cell."""
        return self.numbers[cell.labels[self.axis]]


def varied_axes(cells: Sequence[CellResult]) -> list[str]:
    """Return the axes on which the cells differ, in the order of the study."""
    axes = list(cells[0].labels) if cells else []
    return [axis for axis in axes if len({cell.labels[axis] for cell in cells}) > 1]


def dimensions(analysis: Analysis) -> list[Dimension]:
    """Return the numeric axes with at least two values; of axes that change together only the first."""
    found = []
    for axis in varied_axes(analysis.cells):
        numbers = numeric_labels(analysis, axis)
        if numbers is not None and len(set(numbers.values())) > 1:
            found.append(Dimension(axis, numbers, _tied(analysis.cells, axis)))
    order = list(TITLES)
    found.sort(key=lambda each: order.index(each.word) if each.word in order else len(order))
    return [each for n, each in enumerate(found) if not any(each.axis in before.tied for before in found[:n])]


def numeric_labels(analysis: Analysis, axis: str) -> dict[str, float] | None:
    """Return label -> number of an axis; None if a value is not a number.

    The labels of an axis are numbers if its values are, or if they differ in one setting only, which is a number.
    """
    described = analysis.study.description["cells"]
    values = {cell.labels[axis]: described[cell.name].get("values", {}).get(axis) for cell in analysis.cells}
    numbers = {label: _number(value, label) for label, value in values.items()}
    if any(number is None for number in numbers.values()):
        return _by_setting(analysis.cells, axis)
    return {label: number for label, number in numbers.items() if number is not None}


def _number(value: Any, label: str) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value if isinstance(value, int | float) else label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _by_setting(cells: Sequence[CellResult], axis: str) -> dict[str, float] | None:
    """Return the numbers of an axis with labels such as small and large, which set one number each."""
    groups: dict[tuple[str, ...], dict[str, CellResult]] = {}
    for cell in cells:
        others = tuple(label for name, label in cell.labels.items() if name != axis)
        groups.setdefault(others, {})[cell.labels[axis]] = cell
    group = max(groups.values(), key=len)
    if len(group) < len({cell.labels[axis] for cell in cells}):
        return None
    leaves = {label: _leaves(cell.settings) for label, cell in group.items()}
    keys = {key for each in leaves.values() for key in each}
    differing = [key for key in keys if len({str(each.get(key)) for each in leaves.values()}) > 1]
    if len(differing) != 1:
        return None
    found = {label: _number(each.get(differing[0]), "") for label, each in leaves.items()}
    known = {label: number for label, number in found.items() if number is not None}
    return known if len(known) == len(found) else None


def _leaves(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{before}{key}"
        found |= _leaves(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _tied(cells: Sequence[CellResult], axis: str) -> frozenset[str]:
    """Return the axes whose labels correspond one to one to those of an axis."""

    def one_to_one(other: str) -> bool:
        pairs = {(cell.labels[axis], cell.labels[other]) for cell in cells}
        return len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs})

    return frozenset(other for other in varied_axes(cells) if one_to_one(other))
