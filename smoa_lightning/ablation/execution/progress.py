"""``trials.json``: all trials of the searches and all failed runs, for the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from smoa_lightning.ablation.execution.ledger import REASON, SECONDS
from smoa_lightning.ablation.execution.status import StudyStatus
from smoa_lightning.ablation.execution.trials import BEYOND, ORIGIN, CellSearch
from smoa_lightning.ablation.study.objective import DIRECTIONS
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.records.record import TRIALS

FORMAT = 1


def write_trials(folder: Path, status: StudyStatus) -> None:
    """Write ``trials.json`` into the study folder."""
    searches = {name: describe(search) for name, search in status.searches.items()}
    failed = [dataclasses.asdict(failure) for failure in status.failures()]
    write_sealed(folder / TRIALS, {"format": FORMAT, "searches": searches, "failed": failed})


def describe(search: CellSearch) -> dict[str, Any]:
    """Return a cell's search as JSON."""
    best = search.best()
    return {
        "metric": search.cell.search_metric,
        "direction": DIRECTIONS[search.cell.search_metric],
        "best": None if best is None else best.user_attrs.get(ORIGIN, best.number),
        "importances": importances(search),
        "trials": [_trial(number, attempts[-1]) for number, attempts in sorted(search.trials().items())],
    }


def _trial(number: int, last: FrozenTrial) -> dict[str, Any]:
    return {
        "number": number,
        "state": last.state.name,
        "value": last.value,
        "parameters": last.params,
        "seconds": last.user_attrs.get(SECONDS),
        "reason": last.user_attrs.get(REASON, ""),
        "intermediate": {str(step): value for step, value in sorted(last.intermediate_values.items())},
        **({"beyond": True} if BEYOND in last.user_attrs else {}),
    }


def importances(search: CellSearch) -> dict[str, float]:
    """Return the importance of each parameter for the score (PED-ANOVA); empty with fewer than four trials.

    Trials beyond the ends of ranges are left out, since the importance is that within the ranges.
    """
    attempts = search.ledger.attempts()
    done = [t for t in attempts if t.state == TrialState.COMPLETE and BEYOND not in t.user_attrs]
    if len(done) < 4 or len(search.cell.parameters) < 2 or len({t.value for t in done}) == 1:
        return {}
    within = optuna.create_study(direction="maximize" if search.search_direction == "maximize" else "minimize")
    within.add_trials(done)
    return optuna.importance.get_param_importances(within)
