"""The sampler and the pruner of a search, the values of a trial, and a first try of all three before any run starts."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smoa_lightning.ablation.study.parameters import Parameter
from smoa_lightning.ablation.study.search_space import FINITE, MODELS, OptunaClass, Search
from smoa_lightning.common.errors import UserError, one_line

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

NEED_OPTIONS = ("percentile", "threshold")  # pruners
# Samplers that read the next value from the storage, and need the same seed every time.
SAME_SEED = ("GridSampler", "BruteForceSampler", "QMCSampler")


def sampler(named: OptunaClass, parameters: Sequence[Parameter], seed: int, common: int = 0) -> BaseSampler:
    """Make a sampler. If the study file sets a seed, the sampler's seed depends on it.

    Args:
        named: The sampler of the study.
        parameters: The parameters of the cell.
        seed: Seed of the draws.
        common: Number of trials that have their values without the sampler; they replace its random trials.
    """
    import optuna

    make: Callable[..., BaseSampler] = getattr(optuna.samplers, named.class_name)
    options = dict(named.options)
    if named.class_name == "GridSampler":
        return make({p.key: list(p.values or ()) for p in parameters}, **{"seed": 0, **options})
    if common and named.name in MODELS:
        options = {"n_startup_trials": common, **options}
    given = 0 if named.class_name in SAME_SEED else seed
    if "seed" in options and named.class_name not in SAME_SEED:
        options["seed"] = zlib.crc32(f"{options['seed']}/{seed}".encode())
    return make(**{"seed": given, **options})


def pruner(named: OptunaClass) -> BasePruner:
    """Make a pruner."""
    import optuna

    made: BasePruner = getattr(optuna.pruners, named.class_name)(**named.options)
    return made


def suggest(trial: Trial, parameter: Parameter, beyond: float | None = None) -> Any:
    """Draw a value of a parameter; the range includes ``beyond``, a value outside of it that the trial has."""
    key, step = parameter.key, parameter.step
    low, high = parameter.low, parameter.high
    if beyond is not None:
        low, high = min(low, beyond), max(high, beyond)
    if parameter.choices:
        return trial.suggest_categorical(key, parameter.choices)
    if parameter.integer:
        return trial.suggest_int(key, int(low), int(high), step=1 if step is None else int(step), log=parameter.log)
    return trial.suggest_float(key, float(low), float(high), step=step, log=parameter.log)


def try_search(search: Search) -> None:
    """Make the sampler and the pruner, and ask for trials in memory, if the study names options or needs them.

    Without, Optuna's own defaults are used, so nothing is imported.

    Raises:
        UserError: Optuna refuses an option; the message has the file and the line.
    """
    for kind, named in (("sampler", search.sampler), ("pruner", search.pruner)):
        if not named.options and named.name not in NEED_OPTIONS:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the search shows them
                _ask(kind, named, search)
        except Exception as error:  # errors of Optuna's classes have no common class
            raise UserError(f"{named.where}{kind} {named.name} cannot take its options: {one_line(error)}") from error


def _ask(kind: str, named: OptunaClass, search: Search) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if kind == "pruner":
            _trials(optuna.create_study(pruner=pruner(named)), search, finite=False)
            return
        variants = [named]
        if named.name == "tpe":  # its other options are first used after the random trials
            variants.append(replace(named, options={**named.options, "n_startup_trials": 1}))
        for each in variants:
            study = optuna.create_study(sampler=sampler(each, search.parameters, seed=0))
            _trials(study, search, named.name in FINITE)
    finally:
        optuna.logging.set_verbosity(before)


def _trials(study: Any, search: Search, finite: bool) -> None:
    """Ask for three trials, or for one of a sampler that stops the study after the last value."""
    for _ in range(1 if finite else 3):
        trial = study.ask()
        for parameter in search.parameters:
            suggest(trial, parameter)
        trial.report(0.5, 1)
        trial.should_prune()
        if not finite:
            study.tell(trial, 0.5)
