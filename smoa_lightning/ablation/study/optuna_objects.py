"""A first try of the sampler and the pruner of a search, before any run starts."""

from __future__ import annotations

import warnings
from typing import Any

from smoa_lightning.ablation.study.search_space import FINITE, OptunaClass, Search
from smoa_lightning.common.errors import UserError

NEED_OPTIONS = ("percentile", "threshold")  # pruners


def try_search(search: Search) -> None:
    """Make the sampler and the pruner, and ask for one trial in memory, if the study names options or needs them.

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
            text = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{named.where}{kind} {named.name} cannot take its options: {text}") from error


def _ask(kind: str, named: OptunaClass, search: Search) -> None:
    import optuna

    values = {p.key: list(p.values or ()) for p in search.parameters}
    first: dict[str, Any] = {"search_space": values} if named.class_name == "GridSampler" else {}
    make = getattr(getattr(optuna, f"{kind}s"), named.class_name)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        _trials(optuna.create_study(**{kind: make(**first, **named.options)}), search, named.name in FINITE)
        if named.name == "tpe":  # its other options are first used after the random trials
            _trials(optuna.create_study(sampler=make(**{**named.options, "n_startup_trials": 1})), search, False)
    finally:
        optuna.logging.set_verbosity(before)


def _trials(study: Any, search: Search, finite: bool) -> None:
    """Ask for three trials, or for one of a sampler that stops the study after the last value."""
    for _ in range(1 if finite else 3):
        trial = study.ask()
        for p in search.parameters:
            if p.choices:
                trial.suggest_categorical(p.key, p.choices)
            elif p.integer:
                trial.suggest_int(p.key, int(p.low), int(p.high), step=int(p.step or 1), log=p.log)
            else:
                trial.suggest_float(p.key, float(p.low), float(p.high), step=p.step, log=p.log)
        trial.report(0.5, 1)
        trial.should_prune()
        if not finite:
            study.tell(trial, 0.5)
