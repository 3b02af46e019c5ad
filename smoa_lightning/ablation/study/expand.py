"""Reads a study and expands it to cells. All checks that need no torch run here, before the first run starts."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.study.axes import Value, combined, label_of, parse_axes, parse_zip
from smoa_lightning.ablation.study.baseline import baselines, check_general_text, groups_by_rows
from smoa_lightning.ablation.study.budget import (
    BUDGET,
    DEFAULT_TOLERANCE,
    TOLERANCE,
    check_budget,
    check_cell_budget,
    parse_budget,
)
from smoa_lightning.ablation.study.classes import classes_of
from smoa_lightning.ablation.study.conditions import Condition, Lookup, parse_condition
from smoa_lightning.ablation.study.contrasts import parse_contrasts
from smoa_lightning.ablation.study.objective import DIRECTIONS, Objective, metric_of, parse_secondary
from smoa_lightning.ablation.study.search_space import SEARCH_KEYS, parse_search
from smoa_lightning.ablation.study.space import Cell, Study, command_line
from smoa_lightning.ablation.study.study_file import (
    STUDY_KEYS,
    base_files,
    keep,
    margins_of,
    read_study,
    retries,
    seed_list,
    study_name,
)
from smoa_lightning.ablation.study.trade_off import parse_trade_off
from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.common.folder_names import LONGEST
from smoa_lightning.configuration import check_arguments, check_strategy
from smoa_lightning.configuration.composition import Composer, Settings, value_at
from smoa_lightning.configuration.keys import Keys
from smoa_lightning.configuration.settings import ABSENT, class_settings, owner_of
from smoa_lightning.configuration.yaml_files import LocatedYaml

logger = logging.getLogger(__name__)


def load_study(files: Sequence[Path], flags: Iterable[tuple[str, str | None]] = ()) -> Study:
    """Read study files and flags, and expand them to cells.

    Args:
        files: A study file, and further files that change it.
        flags: Key -> text, from ``configuration.check.flags``: keys of a study (``seeds``, ``search.trials``,
            ``axes.r``) or configuration keys, which become overrides.

    Raises:
        UserError: One sentence about the first error, with file and line.
    """
    return _Expansion(read_study(files, flags)).study()


class _Expansion:
    """The expansion of a study file to cells."""

    def __init__(self, tree: LocatedYaml) -> None:
        self.tree, self.resolver = tree, Composer()
        self.name = study_name(tree)
        self.base = base_files(tree)
        self.keys = Keys(classes_of(tree, self.base, self.resolver))
        self.axes = parse_axes(tree, self.keys)
        self.by_name = {axis.name: axis for axis in self.axes}
        self.seeds = seed_list(tree.value.get("seeds", 3), 0, tree.where("seeds"), "seeds")
        self.objective = Objective.parse(tree.value.get("objective"), tree.where("objective"))
        self.search = parse_search(tree, self.keys, self.seeds, self.objective, self._condition)
        self.overrides = self._overrides()
        self._check_conflicts()

    def study(self) -> Study:
        zipped = parse_zip(self.tree, self.axes)
        drops = [self._condition(*entry) for entry in self._drops()]
        cells: list[Cell] = []
        dropped: list[str] = []
        used: list[Condition] = []
        for chosen in combined(self.axes, zipped, self.tree.where("axes")):
            cell = self._cell(chosen)
            lookup = self._lookup(chosen, cell.settings)
            if drop := next((drop for drop in drops if drop.holds(lookup)), None):
                dropped.append(cell.name)
                used.append(drop)
            else:
                cells.append(self._complete(cell, chosen))
        self._check_cells(cells, dropped)
        for drop in drops:
            if drop not in used:
                logger.warning("%sthis condition drops no cell that is not dropped already", drop.where)
        settings, where = [cell.settings for cell in cells], self.tree.where("secondary")
        metrics = list(dict.fromkeys(cell.report_metric for cell in cells))
        secondary = parse_secondary(self.tree.value.get("secondary"), metrics, settings, where)
        check_general_text(groups_by_rows(cells, self.resolver), [*metrics, *secondary], self.tree.where())
        return Study(
            name=self.name,
            axes=self.axes,
            cells=tuple(cells),
            dropped=tuple(dropped),
            seeds=self.seeds,
            baselines=baselines(self.tree, self.axes, cells, self.resolver),
            objective=self._direction(cells),
            budget=self.overrides.get("model.budget"),
            search=self.search,
            retries=retries(self.tree),
            keep=keep(self.tree),
            resolver=self.resolver,
            margins=margins_of(self.tree, metrics, secondary),
            secondary=secondary,
            contrasts=parse_contrasts(self.tree, self.axes, groups_by_rows(cells, self.resolver)),
            trade_off=parse_trade_off(self.tree, self.axes, [*metrics, *secondary], [c.labels for c in cells]),
        )

    # ------------------------------------------------------------------------------------------------------- overrides

    def _overrides(self) -> dict[str, Any]:
        """Return the settings of all runs, including the budget."""
        found: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        for layer, places in self.tree.value["overrides"]:
            given: dict[str, Any] = {}
            for name, value in layer.items():
                self._check_flag(name, places[name])
                for key, setting in self.keys.flatten({name: value}, places[name]):
                    if key in given:
                        raise UserError(f"{places[name]}the overrides set {key} twice")
                    given[key] = setting
                    self.places[key] = places[name]
            found |= given
        budget = self.tree.value.get("budget")
        if budget is not None:
            where = self.tree.where("budget")
            if found.get("model.budget", budget) != budget:
                raise UserError(
                    f"{where}budget is {budget!r}, but the overrides set model.budget to {found['model.budget']!r}"
                )
            found["model.budget"] = parse_budget(budget, self.tree)
        varied = {key for axis in self.axes for key in axis.keys}
        if TOLERANCE not in varied and (found.get(BUDGET) is not None or BUDGET in varied):
            found.setdefault(TOLERANCE, DEFAULT_TOLERANCE)
        return found

    def _check_flag(self, name: str, where: str) -> None:
        """Refuse an unknown flag, and name study keys that look like its first word, since the flag may be one."""
        if where.startswith("--") and not self.keys.is_key(name):
            axes = [f"axes.{axis.name}" for axis in self.axes if axis.name == name]
            close = axes or difflib.get_close_matches(name.split(".")[0], STUDY_KEYS, 2, cutoff=0.8)
            close = close or [f"search.{key}" for key in difflib.get_close_matches(name, SEARCH_KEYS, 1, cutoff=0.8)]
            own = f"{the_nearest(', '.join(close), 'key of a study')}; " if close else ""
            raise UserError(f"{where}unknown key {name!r}; {own}{the_nearest(self.keys.near(name), 'setting')}")

    # -------------------------------------------------------------------------------------------------- contradictions

    def _check_conflicts(self) -> None:
        for axis in self.axes:
            where = self.tree.where("axes", axis.name)
            if both := sorted(axis.keys & self.overrides.keys()):
                if both == [BUDGET] and self.tree.value.get("budget") is not None:
                    raise UserError(
                        f"{where}axis {axis.name!r} sets model.budget, but the study has one budget for all cells"
                    )
                raise UserError(f"{where}axis {axis.name!r} and the overrides both set {both[0]}")
        check_budget(self.tree, self.overrides, self.places, self.axes, self.search)

    def _drops(self) -> Iterator[tuple[Any, str]]:
        given = self.tree.value.get("drop") or []
        if not isinstance(given, list):
            given = [given]
        for index, condition in enumerate(given):
            yield condition, self.tree.where("drop", index)

    # ------------------------------------------------------------------------------------------------------ conditions

    def _condition(self, given: Any, where: str) -> Condition:
        return parse_condition(given, where, self._axis_or_key, self._check_value)

    def _axis_or_key(self, name: str, where: str) -> str:
        if name in self.by_name:
            return name
        try:
            return self.keys.find(name)
        except UserError as error:
            if " may mean " in str(error):
                raise UserError(f"{where}{error}") from None
            near = f"{the_nearest(nearest(name, self.by_name, 2), 'axis')}; {the_nearest(self.keys.near(name), 'key')}"
            raise UserError(f"{where}{name!r} is not an axis or a configuration key; {near}") from None

    def _check_value(self, name: str, value: Any, where: str) -> Any:
        """Refuse a value that no cell can have: it is not on the axis, and the setting cannot take it.

        Returns:
            The value, or the label of the axis that YAML reads as this value.
        """
        axis = self.by_name.get(name)
        found = None if axis is None else axis.find(value)
        if axis is None:
            self.keys.check(name, value, where)
        elif found is not None:
            return value if isinstance(value, str) or label_of(value, axis.key) == found.label else found.label
        else:
            literals = [v for s in self.keys.settings.get(axis.key or "", ()) for v in s.type.values]
            open_ended = axis.key is not None and not literals
            if open_ended:
                self.keys.check(str(axis.key), value, where)
            elif value not in literals:
                near = nearest(str(value), [v.label for v in axis.values], 1)
                raise UserError(f"{where}axis {name!r} has no value {value!r}; the nearest is {near}")
        return value

    def _lookup(self, chosen: Mapping[str, Value], settings: Settings) -> Lookup:
        def look(key: str) -> tuple[Any, ...]:
            if key in chosen:
                return (chosen[key].value, chosen[key].label)
            value = value_at(settings, key)
            return (self._default(key, settings) if value is ABSENT else value,)

        return look

    def _default(self, key: str, settings: Settings) -> Any:
        """Return the default of a setting; ``ABSENT`` if the cell's strategy does not have the setting."""
        owner = owner_of(key)
        if owner is not None:
            setting = class_settings(owner, str(value_at(settings, f"{owner}.class_path"))).get(key)
        else:
            setting = next(iter(self.keys.settings.get(key, ())), None)
        return setting.default if setting else ABSENT

    # ----------------------------------------------------------------------------------------------------------- cells

    def _cell(self, chosen: Mapping[str, Value]) -> Cell:
        files = (*self.base, *(file for value in chosen.values() for file in value.files))
        flags = dict(self.overrides)
        for value in chosen.values():
            flags |= value.settings
        settings = self.resolver.settings(files, flags)
        labels = {name: value.label for name, value in chosen.items()}
        name = ",".join(f"{self.by_name[axis].shown}={label}" for axis, label in labels.items())
        values = {name: value.value for name, value in chosen.items()}
        return Cell(name, labels, values, files, flags, settings, self.resolver.signature(settings))

    def _complete(self, cell: Cell, chosen: Mapping[str, Value]) -> Cell:
        """Return the cell with its search and metrics, after a check of its command line."""
        where = f"{self.tree.where()}cell {cell.name}: "
        lookup = self._lookup(chosen, cell.settings)
        searched = tuple(p for p in self.search.parameters if p.for_cell(lookup)) if self.search else ()
        for parameter in searched:
            if parameter.key in cell.flags:
                here = self.tree.where("search", "parameters", parameter.name)
                raise UserError(
                    f"{here}{parameter.key} is searched, but an axis or the overrides set it in {cell.name}"
                )
        try:
            check_arguments(
                "fit", list(command_line(cell.files, {**cell.flags, **{p.key: p.example for p in searched}}))
            )
            check_strategy(cell.settings)
            report = metric_of(self.objective, cell.settings, "report")
            trial = metric_of(self.search.objective, cell.settings, "selection") if self.search else ""
        except UserError as error:
            raise UserError(f"{where}{error}") from error
        if self.search and (cell.settings.get("data") or {}).get("selection_rows") == 0:
            raise UserError(f"{where}a search compares trials on selection rows, but data.selection_rows is 0")
        if self.search and (cell.settings.get("trainer") or {}).get("limit_val_batches") == 0:
            raise UserError(f"{where}a search compares trials on selection rows, but trainer.limit_val_batches is 0")
        if self.search and not searched:
            raise UserError(f"{where}no parameter of the search applies to this cell: check 'only' of each parameter")
        check_cell_budget(cell.settings, [*cell.flags, *(p.key for p in searched)], where)
        model = cell.settings.get("model") or {}
        if model.get("budget") is not None and model.get("adapter") is None:
            raise UserError(
                f"{where}the cell has no adapter, so it cannot meet the budget {label_of(model['budget'])}: drop it"
            )
        return replace(cell, parameters=searched, report_metric=report, search_metric=trial)

    def _check_cells(self, cells: Sequence[Cell], dropped: Sequence[str]) -> None:
        if not cells:
            raise UserError(f"{self.tree.where('drop')}no cell is left: the conditions drop all {len(dropped)} cells")
        seen: dict[str, Cell] = {}
        self._check_names(cells)
        for cell in cells:
            other = seen.setdefault(cell.signature, cell)
            if other is not cell:
                both = f"the cells {other.name} and {cell.name}"
                raise UserError(f"{self.tree.where('axes')}{both} have the same settings: drop one of them")

    def _check_names(self, cells: Sequence[Cell]) -> None:
        """Refuse cells whose runs have names that are too long for a folder."""
        trial = f",trial={self.search.trials - 1}" if self.search else ""
        seed = max(*self.seeds, *(self.search.seeds if self.search else ()), 0)
        for cell in cells:
            size = len(f"{cell.name}{trial},seed={seed}".encode("utf-8", "surrogatepass"))
            if size > LONGEST:
                raise UserError(
                    f"{self.tree.where('axes')}runs of the cell {cell.name[:40]}... have names of up to {size} bytes, "
                    f"but the name of a folder has at most {LONGEST}: give shorter labels"
                )

    def _direction(self, cells: Sequence[Cell]) -> Objective:
        """Return the objective; without a metric, with the direction of the tasks' primary metrics."""
        if self.objective.metric is not None:
            return self.objective
        directions = {DIRECTIONS[cell.report_metric] for cell in cells}
        if len(directions) > 1:
            raise UserError(
                f"{self.tree.where('objective')}the primary metrics of the tasks have different directions: "
                "set an objective"
            )
        found = directions.pop()
        if self.objective.direction not in (None, found):
            raise UserError(f"{self.tree.where('objective')}direction is {self.objective.direction}, but for the "
                            f"primary metrics of the tasks it must be {found}")  # fmt: skip
        return Objective(None, found)
