"""The parameter budget of a study: one size for all cells, which nothing else may set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smoa_lightning.ablation.study.axes import Axis, label_of
from smoa_lightning.ablation.study.search_space import Search
from smoa_lightning.ablation.study.study_file import find_file
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.parameter_budget import SIZES, number_of_parameters
from smoa_lightning.configuration.yaml_files import LocatedYaml

BUDGET = "model.budget"
TOLERANCE = "model.budget_tolerance"
DEFAULT_TOLERANCE = 0.01  # a run alone takes the nearest size, but cells are compared at one


def parse_budget(given: Any, tree: LocatedYaml) -> Any:
    """Return a budget as ``model.budget`` takes it: a number, ``300k``, or ``{like: FILE}`` with the file found.

    Raises:
        UserError: No number above 0, or no such file.
    """
    where = tree.where("budget")
    if isinstance(given, Mapping):
        if set(given) != {"like"}:
            raise UserError(
                f"{where}budget is {dict(given)!r}; as a mapping it holds one key, 'like': a strategy's file"
            )
        return {"like": str(find_file(given["like"], tree.location("budget", "like"), "budget.like"))}
    if number_of_parameters(given) is None:
        raise UserError(
            f"{where}budget is {given!r}; it takes a number of trainable parameters, such as 300k, or {{like: FILE}}"
        )
    return given


def check_budget(
    tree: LocatedYaml,
    overrides: Mapping[str, Any],
    places: Mapping[str, str],
    axes: Sequence[Axis],
    search: Search | None,
) -> None:
    """Refuse a study that has a budget and sets the size of its strategies as well.

    Files may set a size: the budget replaces it.

    Args:
        tree: The study.
        overrides: Full key -> value for all runs, the budget among them.
        places: Full key -> where it is overridden.
        axes: The axes.
        search: The search, if there is one.

    Raises:
        UserError: An axis, the search or the overrides set it.
    """
    budgets = [axis.name for axis in axes if BUDGET in axis.keys]
    if overrides.get(BUDGET) is None and not budgets:
        return
    told = f"axis {budgets[0]!r}" if budgets else f"the budget {label_of(overrides[BUDGET])}"
    setters = [
        (key, f"axis {axis.name!r}", tree.where("axes", axis.name)) for axis in axes for key in sorted(axis.keys)
    ]
    setters += [(key, "the overrides", places.get(key, "")) for key in overrides]
    if search is not None:
        setters += [(p.key, "the search", tree.where("search", "parameters", p.name)) for p in search.parameters]
    for key, what, where in setters:
        owner, _, last = key.rpartition(".")
        if owner == "model.adapter.init_args" and last in SIZES:
            raise UserError(
                f"{where}{what} sets {key}, but {told} decides the size of every strategy: leave one of them out"
            )
