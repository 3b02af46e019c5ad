"""Planned contrasts of a study: one side of an axis against another over all other axes, and trends over an axis.

contrasts:
  subspaces: {partition: [spectral_blocks, none]}       # mean of the cells with the first, minus the second
  structure: {partition: [[blocks, random], none]}      # several values on a side
  rank: {r: log}                                        # change for each doubling of r, other axes fixed
  rank_of_blocks: {r: log, partition: spectral_blocks}  # only cells with this value
  rank_of_lora: {method: {log: {lora_r2: 2, lora_r8: 8}}}  # a trend over labels, at these numbers
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from smoa_lightning.ablation.study.axes import Axis, label_of, tied
from smoa_lightning.ablation.study.space import Cell, Contrast
from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.configuration.yaml_files import LocatedYaml

TRENDS = {"log": "2 x {}", "linear": "{} + 1"}  # what one unit of the slope is
EXAMPLE = "such as {partition: [spectral_blocks, none]} or {r: log}"


def parse_contrasts(tree: LocatedYaml, axes: Sequence[Axis], groups: Sequence[Sequence[Cell]]) -> tuple[Contrast, ...]:
    """Read the contrasts of a study file.

    Args:
        tree: The study.
        axes: Its axes.
        groups: The cells, grouped by report rows: a contrast is made of each group that has both of its sides.

    Raises:
        UserError: An axis or a value is unknown, the form is wrong, or no cells have both sides or a trend.
    """
    given = tree.value.get("contrasts")
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise UserError(f"{tree.where('contrasts')}contrasts must be names with axes, {EXAMPLE}")
    found: list[Contrast] = []
    for name, entry in given.items():
        if entry is None:  # a later file or a flag has removed it
            continue
        reader = _Reader(str(name), entry, tree.where("contrasts", name), {axis.name: axis for axis in axes})
        made = [contrast for group in groups if (contrast := reader.contrast(group, several=len(groups) > 1))]
        if not made:
            raise UserError(f"{reader.where}no cells of the study have {reader.needs}")
        found += made
    return tuple(found)


class _Reader:
    """One contrast of a study file."""

    def __init__(self, name: str, entry: Any, where: str, axes: Mapping[str, Axis]) -> None:
        self.name, self.where, self.axes = name, f"{where}contrast {name!r}: ", axes
        if not isinstance(entry, Mapping) or not entry:
            raise UserError(f"{self.where}it is {entry!r}, but must be axes and values, {EXAMPLE}")
        for axis in entry:
            if axis not in axes:
                raise UserError(f"{self.where}{axis!r} is not an axis; {the_nearest(nearest(axis, axes, 3), 'axis')}")
        compared = [axis for axis, value in entry.items() if self._compares(axis, value)]
        if len(compared) != 1:
            many = f"compares {', '.join(compared)}" if compared else "compares no axis"
            raise UserError(f"{self.where}it {many}, but must have one axis with two sides or a trend, {EXAMPLE}")
        self.axis, value = axes[compared[0]], entry[compared[0]]
        self.only = {axis: self._label(axis, value) for axis, value in entry.items() if axis != self.axis.name}
        self.trend: str | None = value if isinstance(value, str) else None
        self.numbers: dict[str, Any] | None = None
        if isinstance(value, Mapping):
            ((self.trend, listed),) = value.items()
            self.numbers = {self._label(self.axis.name, label): number for label, number in listed.items()}
        self.sides: list[list[str]] = []
        if self.trend is None:
            listed = [side if isinstance(side, list) else [side] for side in value]
            self.sides = [[self._label(self.axis.name, label) for label in side] for side in listed]
            if both := {*self.sides[0]} & {*self.sides[1]}:
                raise UserError(f"{self.where}{min(both)!r} is on both sides")
        self.needs = f"a trend over {self.axis.name}" if self.trend else f"both sides of {self.axis.name}"

    def contrast(self, group: Sequence[Cell], several: bool) -> Contrast | None:
        """Return the contrast of cells with the same rows; None if they do not have it."""
        cells = [c for c in group if all(c.labels[axis] == label for axis, label in self.only.items())]
        if self.numbers is not None:
            cells = [c for c in cells if c.labels[self.axis.name] in self.numbers]
        weights = self._slope(cells) if self.trend else self._difference(cells)
        if not weights:
            return None
        name = f"{self.name}, {self._rows(group)}" if several else self.name
        left = self._sides({cell.labels[self.axis.name] for cell in cells})
        declared = self._sides({value.label for value in self.axis.values})
        return Contrast(name, *left, weights, tuple(cell.name for cell in group), declared)

    def _sides(self, labels: Container[str]) -> tuple[str, str]:
        """Return the names of both sides, with only some labels of the axis."""
        shown, only = self.axis.shown, ",".join(f"{self.axes[a].shown}={label}" for a, label in self.only.items())
        if self.numbers is not None:
            listed = (f"{label}: {number:g}" for label, number in self.numbers.items() if label in labels)
            shown = f"{shown} ({', '.join(listed)})"
        above, below = TRENDS.get(str(self.trend), "").format(shown), shown
        if self.trend is None:
            sides = (dict.fromkeys(label for label in side if label in labels) for side in self.sides)
            above, below = (f"{shown}={'+'.join(side)}" for side in sides)
        return (f"{above} ({only})", f"{below} ({only})") if only else (above, below)

    def _compares(self, axis: str, value: Any) -> bool:
        if isinstance(value, list):
            if len(value) != 2 or [] in value:
                raise UserError(f"{self.where}{axis} has {len(value)} sides, but must have two, {EXAMPLE}")
            return True
        if isinstance(value, Mapping):
            if len(value) != 1 or not {*value} <= {*TRENDS} or not isinstance(next(iter(value.values())), Mapping):
                raise UserError(f"{self.where}{axis} is {value!r}, but must be like {{log: {{small: 2, large: 8}}}}")
            return True
        labels = [each.label for each in self.axes[axis].values]
        return isinstance(value, str) and value in TRENDS and value not in labels

    def _label(self, axis: str, value: Any) -> str:
        found = self.axes[axis].find(value)
        if found is None:
            near = nearest(label_of(value), [each.label for each in self.axes[axis].values], 1)
            raise UserError(f"{self.where}axis {axis!r} has no value {value!r}; the nearest is {near}")
        return found.label

    def _difference(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Return the weights of the mean of one side minus the mean of the other."""
        sides = [[c.name for c in cells if c.labels[self.axis.name] in labels] for labels in self.sides]
        if not all(sides):
            return {}
        return {name: sign / len(side) for side, sign in zip(sides, (1, -1), strict=True) for name in side}

    def _slope(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Return the weights of the least squares slope, within cells that are equal on all other axes."""
        places = {cell.name: self._place(cell) for cell in cells}
        groups: dict[tuple[str, ...], list[str]] = {}
        others = [axis for axis in self.axes if not tied([cell.labels for cell in cells], self.axis.name, axis)]
        for cell in cells:
            groups.setdefault(tuple(cell.labels[axis] for axis in others), []).append(cell.name)
        centred: dict[str, float] = {}
        for names in groups.values():
            mean = sum(places[name] for name in names) / len(names)
            centred |= {name: places[name] - mean for name in names if abs(places[name] - mean) > 1e-12}
        total = sum(x**2 for x in centred.values())
        return {name: x / total for name, x in centred.items()}

    def _place(self, cell: Cell) -> float:
        """Return the number of a cell on the axis, or its logarithm to the base 2."""
        label = cell.labels[self.axis.name]
        value = cell.values[self.axis.name] if self.numbers is None else self.numbers[label]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(
                f"{self.where}a trend needs numbers, but {self.axis.name} has {value if self.numbers else label}"
            )
        if self.trend == "linear":
            return float(value)
        if value <= 0:
            raise UserError(f"{self.where}{self.axis.name} has {value}, which has no logarithm: write linear")
        return math.log2(value)

    def _rows(self, group: Sequence[Cell]) -> str:
        """Return the labels that all cells of a group share, of axes with several values."""
        shared = [a for a in self.axes.values() if len(a.values) > 1 and len({c.labels[a.name] for c in group}) == 1]
        return ",".join(f"{axis.shown}={group[0].labels[axis.name]}" for axis in shared) or group[0].name
