"""The parameter budget of a study: one size for all cells. No other setting may decide the size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smoa_lightning.ablation.study.axes import Axis, Value, label_of
from smoa_lightning.ablation.study.search_space import Search
from smoa_lightning.ablation.study.study_file import find_file
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.parameter_budget import SIZES, number_of_parameters
from smoa_lightning.configuration.yaml_files import LocatedYaml

BUDGET = "model.budget"
TOLERANCE = "model.budget_tolerance"
DEFAULT_TOLERANCE = 0.01  # a single run takes the nearest size, but cells are compared at the same size


def parse_budget(given: Any, tree: LocatedYaml) -> Any:
    """Return a budget for ``model.budget``: a number, ``300k``, or ``{like: FILE}`` with the full path of the file.

    Raises:
        UserError: The budget is not a number above 0, or the file does not exist.
    """
    where = tree.where("budget")
    if isinstance(given, Mapping):
        if set(given) != {"like"}:
            raise UserError(
                f"{where}budget is {dict(given)!r}, but a mapping must have the one key 'like' with a strategy's file"
            )
        return {"like": str(find_file(given["like"], tree.location("budget", "like"), "budget.like"))}
    if number_of_parameters(given) is None:
        raise UserError(
            f"{where}budget is {given!r}, but must be a number of trainable parameters, such as 300k, or {{like: FILE}}"
        )
    return given


def check_budget(
    tree: LocatedYaml,
    overrides: Mapping[str, Any],
    places: Mapping[str, str],
    axes: Sequence[Axis],
    search: Search | None,
) -> None:
    """Refuse a study that has a budget and also sets the size of its strategies.

    Files may set a size, since the budget replaces it. So may a value of an axis that sets ``model.budget: null``.

    Args:
        tree: The study.
        overrides: Full key -> value for all runs, including the budget.
        places: Full key -> place of the override.
        axes: The axes.
        search: The search, if there is one.

    Raises:
        UserError: An axis, the search or an override sets a size.
    """
    budgets = [axis.name for axis in axes if BUDGET in axis.keys]
    if overrides.get(BUDGET) is None and not budgets:
        return
    budget = f"axis {budgets[0]!r}" if budgets else f"the budget {label_of(overrides[BUDGET])}"
    setters = [
        (key, f"axis {axis.name!r}", tree.where("axes", axis.name))
        for axis in axes
        for key in sorted({key for value in axis.values if _has_budget(value) for key in value.settings})
    ]
    setters += [(key, "an override", places.get(key, "")) for key in overrides]
    if search is not None:
        setters += [(p.key, "the search", tree.where("search", "parameters", p.name)) for p in search.parameters]
    for key, what, where in setters:
        if _is_size(key):
            raise UserError(
                f"{where}{what} sets {key}, but {budget} decides the size of every strategy: remove one of them"
            )


def check_cell_budget(settings: Mapping[str, Any], set_by_study: Iterable[str], where: str) -> None:
    """Refuse a cell whose size the study sets, although a file of the cell has a budget that would replace it.

    Args:
        settings: Composed settings of the cell.
        set_by_study: Full keys that axes, overrides and the search set.
        where: Place of the cell, for messages.

    Raises:
        UserError: The message names both settings.
    """
    budget = (settings.get("model") or {}).get("budget")
    size = next((key for key in set_by_study if _is_size(key)), None)
    if budget is not None and size is not None:
        raise UserError(
            f"{where}the study sets {size}, but a file sets model.budget to {label_of(budget)}, which decides the size "
            "of every strategy: remove one of them, or set model.budget to null in the overrides"
        )


def _is_size(key: str) -> bool:
    owner, _, last = key.rpartition(".")
    return owner == "model.adapter.init_args" and last in SIZES


def _has_budget(value: Value) -> bool:
    """Whether cells with a value of an axis may have a budget."""
    return BUDGET not in value.settings or value.settings[BUDGET] is not None
