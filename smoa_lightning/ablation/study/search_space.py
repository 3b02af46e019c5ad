"""The search of a study as data: parameters, trials, sampler and pruner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smoa_lightning.ablation.study.conditions import Condition
from smoa_lightning.ablation.study.extension import outside
from smoa_lightning.ablation.study.objective import Objective
from smoa_lightning.ablation.study.parameters import Parameter, parse_parameter
from smoa_lightning.ablation.study.study_file import seed_list
from smoa_lightning.common.errors import UserError, nearest, the_nearest
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
SEARCH_KEYS = ("parameters", "trials", "common", "extend", "sampler", "pruner", "seeds", "objective")
COMMON = 8  # first trials with the same values in all cells
ONE_RANGE = ("gp", "cmaes")  # samplers that draw a parameter alone if its range differs between trials
MODELS = ("tpe", "gp")  # samplers whose random trials the common points replace


@dataclass(frozen=True)
class OptunaClass:
    """A sampler or pruner: its name in a study, its class in Optuna, its options in the study file, and their place."""

    name: str
    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Extension:
    """Trials of a cell beyond the ends of its ranges, while its best value is the smallest or largest tried one.

    Attributes:
        factor: A value of such a trial / the value before it.
        trials: Most of these trials for each cell.
    """

    factor: float = 2.0
    trials: int = 4


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
        common: Number of first trials with the same values in every cell, see ``first_points``.
        extend: Trials beyond the ends of ranges; ``None`` for none.
    """

    parameters: tuple[Parameter, ...]
    trials: int
    sampler: OptunaClass
    pruner: OptunaClass
    seeds: tuple[int, ...]
    objective: Objective
    common: int = 0
    extend: Extension | None = None


def parse_optuna_class(given: Any, table: Mapping[str, str], module: str, default: str, where: str) -> OptunaClass:
    """Read a sampler or pruner: its name, or its name with options, ``{name: tpe, n_startup_trials: 5}``.

    Raises:
        UserError: The name or an option is unknown.
    """
    kind = module.rpartition(".")[2].removesuffix("s")
    options = dict(given) if isinstance(given, Mapping) else {"name": default if given is None else given}
    name = options.pop("name", None)
    if name not in table:
        raise UserError(f"{where}unknown {kind} {name!r}; {the_nearest(nearest(str(name), table, 3))}")
    known = options_of(f"{module}.{table[name]}")
    for option in options:
        if known is not None and option not in known:
            near = the_nearest(nearest(option, known, 3)) if known else "it has no options"
            raise UserError(f"{where}{kind} {name} has no option {option!r}; {near}")
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
    _check_sampler(sampler, parsed, given.get("extend"), where)
    return Search(
        parsed,
        _trials(given.get("trials"), sampler, parsed, tree.where("search", "trials")),
        sampler,
        parse_optuna_class(given.get("pruner"), PRUNERS, "optuna.pruners", "none", tree.where("search", "pruner")),
        search_seeds(given.get("seeds", 1), seeds, tree.where("search", "seeds")),
        Objective.parse(given["objective"], tree.where("search", "objective")) if "objective" in given else objective,
        _common(given, sampler, parsed, tree.where("search", "common")),
        _extension(given.get("extend"), parsed, keys, tree.where("search", "extend")),
    )


def _check_sampler(sampler: OptunaClass, parsed: Sequence[Parameter], extend: Any, where: str) -> None:
    for parameter in parsed:
        if sampler.name in FINITE and parameter.values is None:
            raise UserError(
                f"{where}sampler {sampler.name} tries all values, so {parameter.name} needs choices or a step"
            )
        if sampler.name == "cmaes" and parameter.choices:
            raise UserError(f"{where}sampler cmaes needs ranges, but {parameter.name} has choices; tpe can search both")
    if sampler.name in ONE_RANGE and extend not in (None, False):
        raise UserError(f"{where}sampler {sampler.name} needs the same ranges in all trials, so extend needs tpe")


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


def _common(given: Mapping[str, Any], sampler: OptunaClass, parsed: Sequence[Parameter], where: str) -> int:
    """Return the number of first trials that all cells share: given, or that of the points or of the random trials."""
    value = given.get("common")
    equal = (*FINITE, "qmc")  # these samplers try the same values in every cell
    if value is None:
        if sampler.name in equal:
            return 0
        points = max(len(parameter.points) for parameter in parsed)
        random = sampler.options.get("n_startup_trials") if sampler.name in MODELS else None
        return points or (random if isinstance(random, int) and random >= 0 else COMMON)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TRIALS:
        raise UserError(f"{where}search.common is {value!r}, but must be a whole number from 0 to {MOST_TRIALS:,}")
    if value and sampler.name in equal:
        raise UserError(
            f"{where}search.common is {value}, but sampler {sampler.name} tries the same values in all cells: set 0"
        )
    return value


def _extension(given: Any, parsed: Sequence[Parameter], keys: Keys, where: str) -> Extension | None:
    """Return the trials beyond the ends of ranges.

    Raises:
        UserError: The value is no extension, no range is logarithmic, or a setting cannot have a value that far.
    """
    if given is None or given is False:
        return None
    options = {} if given is True else given
    if not isinstance(options, Mapping) or not options.keys() <= {"factor", "trials"}:
        raise UserError(f"{where}search.extend is {given!r}, but must be true, or {{factor: 2, trials: 4}}")
    extend = Extension(**options)
    if isinstance(extend.trials, bool) or not isinstance(extend.trials, int) or not 1 <= extend.trials <= MOST_TRIALS:
        raise UserError(f"{where}search.extend.trials is {extend.trials!r}, but must be a whole number of at least 1")
    if isinstance(extend.factor, bool) or not isinstance(extend.factor, int | float) or not 1 < extend.factor < 1e6:
        raise UserError(f"{where}search.extend.factor is {extend.factor!r}, but must be a number above 1, such as 2")
    wide = [parameter for parameter in parsed if parameter.log]
    if not wide:
        raise UserError(f"{where}search.extend multiplies values by a factor, so it needs a range with log: true")
    for parameter in wide:
        for values in outside(parameter, extend.factor, extend.trials):
            keys.check(parameter.key, (values or [parameter.low])[-1], f"{where}search.extend: ")
    return extend


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
