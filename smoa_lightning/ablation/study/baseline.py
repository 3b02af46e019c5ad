"""The baseline of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smoa_lightning.ablation.study.axes import Axis, label_of
from smoa_lightning.ablation.study.space import Cell
from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.configuration.composition import Composer, setting_of
from smoa_lightning.configuration.yaml_files import LocatedYaml
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.selection import ON_TRAINED

# Cells with different report rows cannot be compared item by item. So each group of cells with the same values of these
# settings has its own baseline.
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


# The documents of a general text, and where they are cut.
TEXTS = ("forgetting.text", "forgetting.max_documents", "forgetting.max_length")


def baselines(tree: LocatedYaml, axes: Sequence[Axis], cells: Sequence[Cell], resolver: Composer) -> dict[str, str]:
    """Return the name of each cell -> the name of its baseline; empty without a baseline.

    Raises:
        UserError: Among the cells with the same report rows, no cell or several cells match the baseline.
    """
    given = tree.value.get("baseline")
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not given:
        raise UserError(
            f"{tree.where('baseline')}baseline must be {{AXIS: VALUE}} of one cell, such as {{partition: none}}"
        )
    by_name = {axis.name: axis for axis in axes}
    wanted = {}
    for name, value in given.items():
        where = tree.where("baseline", name)
        if name not in by_name:
            raise UserError(
                f"{where}baseline: {name!r} is not an axis; {the_nearest(nearest(name, by_name, 3), 'axis')}"
            )
        found = by_name[name].find(value)
        if found is None:
            near = nearest(label_of(value), [v.label for v in by_name[name].values], 1)
            raise UserError(f"{where}baseline: axis {name!r} has no value {value!r}; the nearest is {near}")
        wanted[name] = found.label
    text = ",".join(f"{by_name[name].shown}={label}" for name, label in wanted.items())
    result: dict[str, str] = {}
    for group in groups_by_rows(cells, resolver):
        baseline = _only(group, wanted, f"{tree.where('baseline')}the baseline {text}", len(group) < len(cells))
        result |= {cell.name: baseline for cell in group}
    return result


def groups_by_rows(cells: Sequence[Cell], resolver: Composer) -> list[list[Cell]]:
    """Return the groups of cells with the same report rows, and with the same teacher if it scores them."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        data = cell.settings.get("data") or {}
        keys = (*ROWS, "limit_train_rows") if data.get("selection") == ON_TRAINED else ROWS
        shared = {key: data.get(key) for key in keys} | {"teacher": cell.scoring_teacher}
        groups.setdefault(resolver.signature(shared), []).append(cell)
    return list(groups.values())


def check_general_text(groups: Sequence[Sequence[Cell]], metrics: Sequence[str], where: str) -> None:
    """Refuse a metric of general text for cells that are compared, but score different texts.

    Raises:
        UserError: The message names the metric, the setting and two cells.
    """
    metric = next((name for name in metrics if METRICS[name].of_general_text), None)
    if metric is None:
        return
    for first, *others in groups:
        for cell in others:
            for key in TEXTS:
                before, after = (setting_of(each.settings, key) for each in (first, cell))
                if before != after:
                    raise UserError(
                        f"{where}{metric} cannot be compared, since {key} is {before} in {first.name} and {after} in "
                        f"{cell.name}: give all cells the same general text"
                    )


def _only(group: Sequence[Cell], wanted: Mapping[str, str], what: str, partial: bool) -> str:
    """Return the name of the only cell with the wanted labels."""
    found = [cell.name for cell in group if all(cell.labels[name] == label for name, label in wanted.items())]
    among = f" among those with the rows of {group[0].name}" if partial else ""
    if not found:
        near = nearest(what.rpartition("baseline ")[2], [cell.name for cell in group], 1)
        raise UserError(f"{what} matches no cell{among}; the nearest cell is {near}")
    if len(found) > 1:
        some = f"{found[0]} and {found[1]}"
        raise UserError(
            f"{what} matches {len(found)} cells{among}, for example {some}: add a value of each axis that differs"
        )
    return found[0]
