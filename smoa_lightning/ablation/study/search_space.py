"""The search of a study as data: parameters with their ranges, trials, sampler and pruner."""

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
FINITE = ("grid", "brute_force")  # samplers that need a list of all values
OWN_ARGUMENTS = ("search_space", "wrapped_pruner")  # set by this code, not by the study file

MOST_TRIALS = 10_000  # of a cell
RANGE_KEYS = ("low", "high", "log", "step", "only")
CHOICE_KEYS = ("choices", "only")
SEARCH_KEYS = ("parameters", "trials", "sampler", "pruner", "seeds", "objective")


@dataclass(frozen=True)
class Parameter:
    """One searched setting, with a range or choices.

    Attributes:
        key: Full configuration key.
        name: Name in the study file.
        choices: The values; empty for a range.
        low: Smallest value of a range.
        high: Largest value of a range, included in the range.
        log: Whether the range is searched on a logarithmic scale.
        step: Distance between values; ``None`` for all numbers, or all whole numbers.
        integer: Whether the range has only whole numbers.
        only: The cells that the parameter applies to; ``None`` for all cells.
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
        """All values in order; ``None`` if their number is not finite or they are not evenly spaced."""
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
        """One possible value, to check the setting with."""
        return self.choices[0] if self.choices else self.low

    def for_cell(self, lookup: Lookup) -> bool:
        """Whether the parameter applies to a cell."""
        return self.only is None or self.only.holds(lookup)


@dataclass(frozen=True)
class OptunaClass:
    """A sampler or pruner: its name in a study, its class in Optuna, its options in the study file, and their place."""

    name: str
    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Search:
    """An Optuna study for each cell, all with the same number of trials.

    Attributes:
        parameters: The searched settings.
        trials: Trials of each cell.
        sampler: Draws the values.
        pruner: Ends trials early.
        seeds: Seeds of every trial, different from those of the final runs.
        objective: Compares the trials on the selection rows.
    """

    parameters: tuple[Parameter, ...]
    trials: int
    sampler: OptunaClass
    pruner: OptunaClass
    seeds: tuple[int, ...]
    objective: Objective


def parse_parameter(
    name: str, given: Any, keys: Keys, where: str, condition: Callable[[Any, str], Condition]
) -> Parameter:
    """Read ``{low, high, log, step}`` or ``{choices}`` of a configuration key.

    Raises:
        UserError: A key is unknown, the bounds are not a range, or the setting cannot take a value.
    """
    key = keys.find(name, where)
    if not isinstance(given, Mapping) or ("choices" in given) == ("low" in given or "high" in given):
        raise UserError(
            f"{where}{name} must be a range, {{low: 1e-4, high: 1e-1, log: true}}, or {{choices: [0.0, 0.1]}}"
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
        raise UserError(f"{where}{name}: choices must be a list of values, such as [0.0, 0.05]")
    for index, value in enumerate(given):
        if isinstance(value, list | Mapping):
            raise UserError(f"{where}{name}: {value!r} cannot be searched; choices must be numbers, words or null")
        if value in given[:index]:
            raise UserError(f"{where}{name}: choices have {value!r} twice")
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
        raise UserError(f"{where}{name}: log is {log!r}, but must be true or false")
    if not low < high:
        raise UserError(f"{where}{name}: low is {low} and high is {high}, but low must be smaller than high")
    if log and (low <= 0 or step is not None):
        raise UserError(f"{where}{name}: a logarithmic range needs a low above 0 and no step")
    if step is not None and (step <= 0 or (integer and not isinstance(step, int))):
        raise UserError(f"{where}{name}: step is {step}, but must be a {'whole ' if integer else ''}number above 0")
    return Parameter(key, name, (), low, high, log, step, integer, only)


def parse_optuna_class(given: Any, table: Mapping[str, str], module: str, default: str, where: str) -> OptunaClass:
    """Read a sampler or pruner: its name, or its name with options, ``{name: tpe, n_startup_trials: 5}``.

    Raises:
        UserError: The name or an option is unknown.
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
    return OptunaClass(name, table[name], options, where)


def parse_search(
    tree: LocatedYaml,
    keys: Keys,
    seeds: Sequence[int],
    objective: Objective,
    condition: Callable[[Any, str], Condition],
) -> Search | None:
    """Read the search of a study; ``None`` without a search.

    Args:
        tree: The study.
        keys: Its configuration keys.
        seeds: Seeds of the final runs.
        objective: Objective of the study.
        condition: Reads a condition.

    Raises:
        UserError: The search has an error.
    """
    given = tree.value.get("search")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UserError(f"{tree.where('search')}search must be a mapping with the keys {', '.join(SEARCH_KEYS)}")
    for key in given:
        if key not in SEARCH_KEYS:
            near = nearest(str(key), SEARCH_KEYS, 1)
            raise UserError(f"{tree.where('search', key)}unknown key 'search.{key}'; the nearest is search.{near}")
    listed = given.get("parameters")
    listed = {n: s for n, s in listed.items() if s is not None} if isinstance(listed, dict) else None
    if not listed:
        raise UserError(
            f"{tree.where('search')}a search needs 'parameters', such as lr: {{low: 1e-4, high: 1e-1, log: true}}"
        )
    found: dict[str, Parameter] = {}
    for name, spec in listed.items():
        where = tree.where("search", "parameters", name)
        parameter = parse_parameter(name, spec, keys, where, condition)
        if parameter.key in found:
            raise UserError(f"{where}{name} and {found[parameter.key].name} are the same setting, {parameter.key}")
        found[parameter.key] = parameter
    parsed = tuple(found.values())
    where = tree.where("search", "sampler")
    sampler = parse_optuna_class(given.get("sampler"), SAMPLERS, "optuna.samplers", "tpe", where)
    _check_sampler(sampler, parsed, where)
    return Search(
        parsed,
        _trials(given.get("trials"), sampler, parsed, tree.where("search", "trials")),
        sampler,
        parse_optuna_class(given.get("pruner"), PRUNERS, "optuna.pruners", "none", tree.where("search", "pruner")),
        search_seeds(given.get("seeds", 1), seeds, tree.where("search", "seeds")),
        Objective.parse(given["objective"], tree.where("search", "objective")) if "objective" in given else objective,
    )


def _check_sampler(sampler: OptunaClass, parsed: Sequence[Parameter], where: str) -> None:
    for parameter in parsed:
        if sampler.name in FINITE and parameter.values is None:
            raise UserError(
                f"{where}sampler {sampler.name} tries all values, so {parameter.name} needs choices or a step"
            )
        if sampler.name == "cmaes" and parameter.choices:
            raise UserError(f"{where}sampler cmaes needs ranges, but {parameter.name} has choices; tpe can search both")


def _trials(given: Any, sampler: OptunaClass, parsed: Sequence[Parameter], where: str) -> int:
    """Return the number of trials; by default a sampler that tries all values has one trial for each combination."""
    everywhere = [p for p in parsed if p.only is None]
    size = math.prod(len(p.values or ()) for p in everywhere) if sampler.name in FINITE else None
    if given is None and len(everywhere) == len(parsed) and size is not None:
        return size
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UserError(
            f"{where}search.trials is {given!r}, but must be a whole number of at least 1, the same for each cell"
        )
    if given > MOST_TRIALS:
        raise UserError(f"{where}search.trials is {given:,}, but a cell takes at most {MOST_TRIALS:,}")
    if size is not None and given > size:
        raise UserError(
            f"{where}search.trials is {given}, but sampler {sampler.name} has only {size} combinations for a cell"
        )
    return given


FIRST_SEARCH_SEED = 1000  # search seeds given as a number begin here, to differ from the seeds of the final runs


def search_seeds(given: Any, final: Sequence[int], where: str) -> tuple[int, ...]:
    """Return the seeds of the trials.

    Raises:
        UserError: A seed is also a seed of the final runs, which need seeds that no trial has used.
    """
    first = FIRST_SEARCH_SEED if max(final) < FIRST_SEARCH_SEED else max(final) + 1
    seeds = seed_list(given, first, where, "search.seeds")
    if both := sorted({*seeds} & {*final}):
        raise UserError(
            f"{where}seed {both[0]} is in search.seeds and in seeds, but the final runs need different seeds"
        )
    return seeds
