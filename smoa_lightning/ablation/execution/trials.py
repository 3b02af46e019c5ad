"""The trials of a cell's search: the next values, the number of trials, and the best trial.

A trial that dies or fails is tried again with the same values, and keeps the number of its first attempt. So its runs
continue from their checkpoints, and the sampler sees the trial once. All cells end with the same number of trials.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from smoa_lightning.ablation.execution.ledger import ENDED, MOST_DEATHS, PULSE, RUN, WORKER, Ledger, count
from smoa_lightning.ablation.study.objective import DIRECTIONS
from smoa_lightning.ablation.study.optuna_objects import pruner, sampler, suggest
from smoa_lightning.ablation.study.search_space import Search
from smoa_lightning.ablation.study.space import Cell

ORIGIN = "origin"  # number of a trial's first attempt


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that this worker has claimed.

    Args:
        attempt: Its attempt in the storage.
        number: Number of the trial, which is the number of its first attempt.
        parameters: Full configuration key -> value.
        trial: The Optuna trial, for intermediate values and pruning.
    """

    attempt: int
    number: int
    parameters: Mapping[str, Any]
    trial: Trial


class CellSearch:
    """The search of one cell.

    Args:
        ledger: The attempts of the search.
        cell: The cell.
        search: The search of the study.
        retries: How often a failed trial is tried again.
    """

    def __init__(self, ledger: Ledger, cell: Cell, search: Search, retries: int) -> None:
        self.ledger, self.cell, self.search, self.retries = ledger, cell, search, retries

    def trials(self) -> dict[int, list[FrozenTrial]]:
        """Return the attempts at each trial, by the number of the first attempt.

        Queued trials are not attempts, and attempts that ended before their values were known do not count.
        """
        found: dict[int, list[FrozenTrial]] = {}
        for trial in self.ledger.attempts():
            lost = trial.user_attrs.get(ENDED) == "lost" or trial.state == TrialState.WAITING
            if not lost and not (trial.state == TrialState.FAIL and not trial.params):
                found.setdefault(trial.user_attrs.get(ORIGIN, trial.number), []).append(trial)
        return found

    def failed_too_often(self, attempts: Sequence[FrozenTrial]) -> bool:
        """Whether a trial has failed too often."""
        first_counted = self.ledger.first_counted()
        counted = [trial for trial in attempts if trial.number >= first_counted]
        failed = count(counted, "error") > self.retries or count(counted, "died") > MOST_DEATHS
        return attempts[-1].state == TrialState.FAIL and failed

    def taken(self) -> list[FrozenTrial]:
        """Return the last attempt of each trial that is done, is running, or has failed too often."""
        return [
            attempts[-1]
            for attempts in self.trials().values()
            if attempts[-1].state != TrialState.FAIL or self.failed_too_often(attempts)
        ]

    def ended(self) -> bool:
        """Whether all trials have ended."""
        taken = self.taken()
        return len(taken) >= self.search.trials and all(t.state != TrialState.RUNNING for t in taken)

    def claim(self) -> ClaimedTrial | None:
        """Claim the next trial; ``None`` if all trials are taken, or another worker was first."""
        if len(self.taken()) >= self.search.trials:
            return None
        self._queue_again()
        self._queue_untried()
        trial = self.study().ask()
        number = int(trial.user_attrs.get(ORIGIN, trial.number))
        trial.set_user_attr(WORKER, str(self.ledger.worker))
        trial.set_user_attr(PULSE, 0)
        trial.set_user_attr(RUN, f"{self.cell.name},trial={number}")
        parameters = {p.key: suggest(trial, p) for p in self.cell.parameters}
        if self._taken_by_others(trial, number) or self._repeats(trial, parameters):
            self.ledger.end(trial._trial_id, "lost", "another worker was first")
            return None
        return ClaimedTrial(trial._trial_id, number, parameters, trial)

    def _queue_again(self) -> None:
        """Queue trials that ended without a result, with the same values, unless they have failed too often."""
        queued = {t.user_attrs.get(ORIGIN) for t in self.ledger.attempts() if t.state == TrialState.WAITING}
        for number, attempts in self.trials().items():
            last = attempts[-1]
            if last.state == TrialState.FAIL and number not in queued and not self.failed_too_often(attempts):
                self.study().enqueue_trial(dict(last.params), user_attrs={ORIGIN: number})

    def _grid(self) -> list[dict[str, Any]]:
        """Return the points of a grid; empty for other samplers, which may try a point twice."""
        if self.search.sampler.class_name != "GridSampler":
            return []
        keys = [parameter.key for parameter in self.cell.parameters]
        return [
            dict(zip(keys, point, strict=True))
            for point in itertools.product(*(p.values or () for p in self.cell.parameters))
        ]

    def _queue_untried(self) -> None:
        """Queue a point of the grid that was not tried.

        Optuna's sampler skips a point if its worker died before the values were known.
        """
        waiting = [t for t in self.ledger.attempts() if t.state == TrialState.WAITING]
        if not waiting:
            tried = [trial.params for trial in self.taken()]
            untried = next((point for point in self._grid() if point not in tried), None)
            if untried is not None:
                self.study().enqueue_trial(untried)

    def _repeats(self, trial: Trial, parameters: Mapping[str, Any]) -> bool:
        """Whether an earlier trial of a grid has the same values, without attempts at the same trial."""
        if not self._grid() or ORIGIN in trial.user_attrs:
            return False
        return any(
            t.number < trial.number and t.params == parameters for t in self.taken() if ORIGIN not in t.user_attrs
        )

    def _taken_by_others(self, trial: Trial, number: int) -> bool:
        """Whether another worker has taken this trial, or all trials."""
        for other in self.trials().get(number, []):
            ended = other.state in (TrialState.COMPLETE, TrialState.PRUNED)
            if other.number != trial.number and (
                ended or (other.state == TrialState.RUNNING and other.number < trial.number)
            ):
                return True
        taken = self.taken()
        last = max(t.number for t in taken) == trial.number
        return len(taken) > self.search.trials and (ORIGIN in trial.user_attrs or last)

    def study(self) -> optuna.Study:
        """Return the Optuna study with a new sampler.

        The sampler's seed depends on the number of attempts. With the same seed, every process would draw the same
        first values.
        """
        drawn = len(self.ledger.attempts())
        seed = zlib.crc32(f"{self.cell.name}/{drawn}".encode())
        return optuna.load_study(
            study_name=self.ledger.name,
            storage=self.ledger.storage,
            sampler=sampler(self.search.sampler, self.cell.parameters, seed),
            pruner=pruner(self.search.pruner),
        )

    def best(self) -> FrozenTrial | None:
        """Return the best completed trial; of equal trials, the first."""
        done = [t for t in self.ledger.attempts() if t.state == TrialState.COMPLETE and t.value is not None]
        sign = -1 if self.search_direction == "maximize" else 1
        return min(done, key=lambda t: (sign * float(t.value or 0), t.number), default=None)

    @property
    def search_direction(self) -> str:
        """The better direction of the search's metric."""
        return DIRECTIONS[self.cell.search_metric]
