"""The search of a study: its parameters and their ranges, trials, sampler and pruner, as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from smoa_lightning.ablation.study.conditions import Condition, Lookup
from smoa_lightning.ablation.study.objective import Objective
from smoa_lightning.ablation.study.study_file import seed_list
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.keys import Keys
from smoa_lightning.configuration.settings import options_of
from smoa_lightning.configuration.yaml_files import LocatedYaml

# Name in a study -> class in optuna.samplers, optuna.pruners
SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "grid": "GridSampler",
    "brute_force": "BruteForceSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "qmc": "QMCSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "threshold": "ThresholdPruner",
}
FINITE = ("grid", "brute_force")  # samplers that need to list all values
OWN_ARGUMENTS = ("search_space", "wrapped_pruner")  # given by the study, not by its file

RANGE_KEYS = ("low", "high", "log", "step", "only")
CHOICE_KEYS = ("choices", "only")
SEARCH_KEYS = ("parameters", "trials", "sampler", "pruner", "seeds", "objective")


@dataclass(frozen=True)
class Parameter:
    """One setting that is searched, over a range or over choices.

    Attributes:
        key: Full configuration key.
        name: What the file calls it.
        choices: The values; empty for a range.
        low: Smallest value of a range.
        high: Largest value of a range, itself included.
        log: Whether the logarithm is searched evenly.
        step: Distance of neighbouring values; ``None`` for every value, which for whole numbers are 1 apart.
        integer: Whether the range holds whole numbers only.
        only: The cells that it is for; ``None`` for all.
    """

    key: str
    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    integer: bool = False
    only: Condition | None = None

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values in order, ``None`` where they are not finite or not evenly spaced."""
        if self.choices:
            return self.choices
        step = self.step if self.step is not None else 1 if self.integer and not self.log else None
        if step is None:
            return None
        if self.integer:
            return tuple(range(int(self.low), int(self.high) + 1, int(step)))
        low, high, distance = (Decimal(str(number)) for number in (self.low, self.high, step))  # 3 * 0.1 is 0.3
        return tuple(float(low + index * distance) for index in range(int((high - low) / distance) + 1))

    @property
    def example(self) -> Any:
        """A value that can come up, to check the setting with."""
        return self.choices[0] if self.choices else self.low

    def for_cell(self, lookup: Lookup) -> bool:
        """Whether a cell is searched over it."""
        return self.only is None or self.only.holds(lookup)


@dataclass(frozen=True)
class Named:
    """A sampler or pruner: its name in a study, its class in Optuna, and what the file gives it."""

    name: str
    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """An Optuna study for each cell, all with the same number of trials.

    Attributes:
        parameters: What is searched.
        trials: Trials of each cell.
        sampler: How values are drawn.
        pruner: Which trials end early.
        seeds: Every trial is run with each of them; none is a seed of the final runs.
        objective: What the trials are compared by, on the selection rows.
    """

    parameters: tuple[Parameter, ...]
    trials: int
    sampler: Named
    pruner: Named
    seeds: tuple[int, ...]
    objective: Objective


def parse_parameter(
    name: str, given: Any, keys: Keys, where: str, condition: Callable[[Any, str], Condition]
) -> Parameter:
    """Read ``{low, high, log, step}`` or ``{choices}`` of a configuration key.

    Raises:
        UserError: An unknown key, bounds that make no range, or a value that the setting can not take.
    """
    key = keys.find(name, where)
    if not isinstance(given, Mapping) or ("choices" in given) == ("low" in given or "high" in given):
        raise UserError(
            f"{where}{name} takes a range, {{low: 1e-4, high: 1e-1, log: true}}, or {{choices: [0.0, 0.1]}}"
        )
    allowed = CHOICE_KEYS if "choices" in given else RANGE_KEYS
    for word in given:
        if word not in allowed:
            raise UserError(f"{where}{name}: unknown key {word!r}; the nearest is {nearest(str(word), allowed, 1)}")
    only = condition(given["only"], where) if "only" in given else None
    if "choices" in given:
        return Parameter(key, name, _choices(name, key, given["choices"], keys, where), only=only)
    return _range(name, key, given, keys, where, only)


def _choices(name: str, key: str, given: Any, keys: Keys, where: str) -> tuple[Any, ...]:
    if not isinstance(given, list) or not given:
        raise UserError(f"{where}{name}: choices are a list of values, such as [0.0, 0.05]")
    for index, value in enumerate(given):
        if isinstance(value, list | Mapping):
            raise UserError(f"{where}{name}: {value!r} can not be searched; choices are numbers, words or null")
        if value in given[:index]:
            raise UserError(f"{where}{name}: choices name {value!r} twice")
        keys.check(key, value, where)
    return tuple(given)


def _range(name: str, key: str, given: Mapping[str, Any], keys: Keys, where: str, only: Condition | None) -> Parameter:
    for bound in ("low", "high", "step"):
        value = given.get(bound)
        if (value is None and bound != "step") or isinstance(value, bool | str | list | Mapping):
            raise UserError(f"{where}{name}: {bound} is {value!r}, but must be a number")
        if value is not None and bound != "step":
            keys.check(key, value, where)
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    whole = keys.whole(key)
    integer = all(isinstance(v, int) for v in (low, high, step or 1)) if whole is None else whole
    if not isinstance(log, bool):
        raise UserError(f"{where}{name}: log is {log!r}, but is true or false")
    if not low < high:
        raise UserError(f"{where}{name}: low is {low} and high is {high}, but low must be the smaller one")
    if log and (low <= 0 or step is not None):
        raise UserError(f"{where}{name}: a logarithmic range has a low above 0 and no step")
    if step is not None and (step <= 0 or (integer and not isinstance(step, int))):
        raise UserError(f"{where}{name}: step is {step}, but must be a {'whole ' if integer else ''}number above 0")
    return Parameter(key, name, (), low, high, log, step, integer, only)


def parse_named(given: Any, table: Mapping[str, str], module: str, default: str, where: str) -> Named:
    """Read a sampler or pruner: its name, or its name with options, ``{name: tpe, n_startup_trials: 5}``.

    Raises:
        UserError: There is none of this name, or it has no such option.
    """
    kind = module.rpartition(".")[2].removesuffix("s")
    options = dict(given) if isinstance(given, Mapping) else {"name": default if given is None else given}
    name = options.pop("name", None)
    if name not in table:
        raise UserError(f"{where}unknown {kind} {name!r}; the nearest are {nearest(str(name), table, 3)}")
    known = options_of(f"{module}.{table[name]}")
    for option in options:
        if known is not None and option not in known:
            raise UserError(
                f"{where}{kind} {name} has no option {option!r}; the nearest are {nearest(option, known, 3)}"
            )
    return Named(name, table[name], options)


def parse_search(
    tree: LocatedYaml,
    keys: Keys,
    seeds: Sequence[int],
    objective: Objective,
    condition: Callable[[Any, str], Condition],
) -> Search | None:
    """Read the search of a study, ``None`` where it has none.

    Args:
        tree: The study.
        keys: Its configuration keys.
        seeds: Those of the final runs.
        objective: That of the study.
        condition: Reads a condition.

    Raises:
        UserError: Anything in it that can not be.
    """
    given = tree.value.get("search")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UserError(f"{tree.where('search')}search is a mapping of {', '.join(SEARCH_KEYS)}")
    for key in given:
        if key not in SEARCH_KEYS:
            near = nearest(str(key), SEARCH_KEYS, 1)
            raise UserError(f"{tree.where('search', key)}unknown key 'search.{key}'; the nearest is search.{near}")
    listed = given.get("parameters")
    listed = {n: s for n, s in listed.items() if s is not None} if isinstance(listed, dict) else None
    if not listed:
        raise UserError(
            f"{tree.where('search')}a search has 'parameters', such as lr: {{low: 1e-4, high: 1e-1, log: true}}"
        )
    found: dict[str, Parameter] = {}
    for name, spec in listed.items():
        where = tree.where("search", "parameters", name)
        parameter = parse_parameter(name, spec, keys, where, condition)
        if parameter.key in found:
            raise UserError(f"{where}{name} and {found[parameter.key].name} are the same setting, {parameter.key}")
        found[parameter.key] = parameter
    parsed = tuple(found.values())
    sampler = parse_named(given.get("sampler"), SAMPLERS, "optuna.samplers", "tpe", tree.where("search", "sampler"))
    _check_sampler(sampler, parsed, tree.where("search", "sampler"))
    return Search(
        parsed,
        _trials(given.get("trials"), sampler, parsed, tree.where("search", "trials")),
        sampler,
        parse_named(given.get("pruner"), PRUNERS, "optuna.pruners", "none", tree.where("search", "pruner")),
        search_seeds(given.get("seeds", 1), seeds, tree.where("search", "seeds")),
        Objective.parse(given["objective"], tree.where("search", "objective")) if "objective" in given else objective,
    )


def _check_sampler(sampler: Named, parsed: Sequence[Parameter], where: str) -> None:
    for parameter in parsed:
        if sampler.name in FINITE and parameter.values is None:
            raise UserError(
                f"{where}sampler {sampler.name} goes through all values, so {parameter.name} needs choices or a step"
            )
        if sampler.name == "cmaes" and parameter.choices:
            raise UserError(f"{where}sampler cmaes searches ranges, but {parameter.name} has choices; tpe takes both")


def _trials(given: Any, sampler: Named, parsed: Sequence[Parameter], where: str) -> int:
    """The number of trials; going through all values gives it as well."""
    everywhere = [p for p in parsed if p.only is None]
    size = math.prod(len(p.values or ()) for p in everywhere) if sampler.name in FINITE else None
    if given is None and len(everywhere) == len(parsed) and size is not None:
        return size
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UserError(
            f"{where}search.trials is {given!r}, but must be a whole number from 1 on, the same for each cell"
        )
    if size is not None and given > size:
        raise UserError(
            f"{where}search.trials is {given}, but sampler {sampler.name} has only {size} combinations for a cell"
        )
    return given


FIRST_SEARCH_SEED = 1000  # a count of search seeds begins here, away from the final ones


def search_seeds(given: Any, final: Sequence[int], where: str) -> tuple[int, ...]:
    """Return the seeds of the trials.

    Raises:
        UserError: One of them is a seed of the final runs, which would then not be fresh.
    """
    first = FIRST_SEARCH_SEED if max(final) < FIRST_SEARCH_SEED else max(final) + 1
    seeds = seed_list(given, first, where, "search.seeds")
    if both := sorted({*seeds} & {*final}):
        raise UserError(
            f"{where}seed {both[0]} is in search.seeds and in seeds, but the final runs need seeds of their own"
        )
    return seeds
