"""The cell that the others are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smoa_lightning.ablation.study.axes import Axis, label_of
from smoa_lightning.ablation.study.space import Cell
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.composition import Composer
from smoa_lightning.configuration.yaml_files import LocatedYaml

# Cells that are reported on other rows are not compared item by item: each of these makes a group with its baseline.
ROWS = (
    "task",
    "mixture",
    "report_tasks",
    "source",
    "path",
    "repository",
    "revision",
    "report_split",
    "limit_report_rows",
)


def baselines(tree: LocatedYaml, axes: Sequence[Axis], cells: Sequence[Cell], resolver: Composer) -> dict[str, str]:
    """Return the name of each cell -> that of the cell that it is compared with; nothing without a baseline.

    Raises:
        UserError: The baseline is no cell, or several, among the cells that are reported on the same rows.
    """
    given = tree.value.get("baseline")
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"{tree.where('baseline')}baseline is {{AXIS: VALUE}} of one cell, such as {{partition: none}}")
    by_name = {axis.name: axis for axis in axes}
    wanted = {}
    for name, value in given.items():
        where = tree.where("baseline", name)
        if name not in by_name:
            raise UserError(f"{where}baseline: {name!r} is no axis; the nearest are {nearest(name, by_name, 3)}")
        found = by_name[name].find(value)
        if found is None:
            near = nearest(label_of(value), [v.label for v in by_name[name].values], 1)
            raise UserError(f"{where}baseline: axis {name!r} has no value {value!r}; the nearest is {near}")
        wanted[name] = found.label
    text = ",".join(f"{by_name[name].shown}={label}" for name, label in wanted.items())
    result: dict[str, str] = {}
    for group in _groups(cells, resolver):
        baseline = _only(group, wanted, f"{tree.where('baseline')}the baseline {text}", len(group) < len(cells))
        result |= {cell.name: baseline for cell in group}
    return result


def _groups(cells: Sequence[Cell], resolver: Composer) -> list[list[Cell]]:
    """The cells that are reported on the same rows."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        data = cell.settings.get("data") or {}
        groups.setdefault(resolver.signature({key: data.get(key) for key in ROWS}), []).append(cell)
    return list(groups.values())


def _only(group: Sequence[Cell], wanted: Mapping[str, str], what: str, partial: bool) -> str:
    """The name of the one cell with the wanted labels."""
    found = [cell.name for cell in group if all(cell.labels[name] == label for name, label in wanted.items())]
    among = f" among those with the rows of {group[0].name}" if partial else ""
    if not found:
        near = nearest(what.rpartition("baseline ")[2], [cell.name for cell in group], 1)
        raise UserError(f"{what} is no cell{among}; the nearest cell is {near}")
    if len(found) > 1:
        some = f"{found[0]} and {found[1]}"
        raise UserError(
            f"{what} is {len(found)} cells{among}, {some} of them: name a value of the axes that they differ in"
        )
    return found[0]
