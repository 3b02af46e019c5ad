"""The trials of a cell's search: the next values, the number of trials, and the best trial.

A trial that dies or fails is tried again with the same values, and keeps the number of its first attempt. So its runs
continue from their checkpoints, and the sampler sees the trial once. All cells end with the same number of trials.
Their first trials have the same values. After the last trial, a cell may get trials beyond the ends of its ranges.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from smoa_lightning.ablation.execution.ledger import ENDED, MOST_DEATHS, PULSE, RUN, WORKER, Ledger, count
from smoa_lightning.ablation.study.extension import beyond
from smoa_lightning.ablation.study.first_points import first_points
from smoa_lightning.ablation.study.objective import DIRECTIONS
from smoa_lightning.ablation.study.optuna_objects import pruner, sampler, suggest
from smoa_lightning.ablation.study.search_space import Search
from smoa_lightning.ablation.study.space import Cell

ORIGIN = "origin"  # number of a trial's first attempt
POINT = "point"  # marks a trial whose values were known before it began
BEYOND = "beyond"  # the values of a trial that may be outside of the ranges
SEEDS = "/seeds="  # before the seeds in the name of an Optuna study


def seeds_suffix(search: Search) -> str:
    """Return the end of the name of a search: a trial's score is a mean over seeds, so other seeds are another search.

    Earlier versions had no such end for any seeds. Their trials are queued, and their runs are used again.
    """
    return SEEDS + ",".join(map(str, search.seeds))


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

    def queue_trials_of_other_seeds(self, name: str) -> None:
        """Queue the values of an earlier search of the cell with different seeds, so that its runs are used again.

        Args:
            name: Name of the Optuna studies of the cell's searches, without their seeds.
        """
        known = {study.study_name for study in self.ledger.storage.get_all_studies()}
        names = (each for each in known if each == name or each.startswith(f"{name}{SEEDS}"))
        ledgers = (self.ledger.named(each) for each in sorted(names) if each != self.ledger.name)
        searches = (CellSearch(ledger, self.cell, self.search, self.retries).trials() for ledger in ledgers)
        for _, attempts in sorted(max(searches, key=len, default={}).items()):
            last = attempts[-1]
            if last.params and BEYOND not in last.user_attrs:
                self.study().enqueue_trial(dict(last.params), {POINT: True} if POINT in last.user_attrs else {})

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
        return not self._open() and all(t.state != TrialState.RUNNING for t in self.taken())

    def planned(self) -> int:
        """Return the number of trials: those of the search, and those beyond the ends of ranges so far."""
        return self.search.trials + sum(BEYOND in attempts[0].user_attrs for attempts in self.trials().values())

    def _open(self) -> bool:
        """Whether a trial is left that no worker has."""
        taken = self.taken()
        within = sum(BEYOND not in trial.user_attrs for trial in taken)
        again = len(self.trials()) > len(taken)  # an attempt has failed, but not too often
        return within < self.search.trials or again or self._beyond() is not None

    def _beyond(self) -> dict[str, Any] | None:
        """Return the values of the next trial beyond the ends of ranges; ``None`` if there is none, or not yet."""
        extend, taken, best = self.search.extend, self.taken(), self.best()
        if extend is None or best is None or len(self.trials()) > len(taken):
            return None
        done = sum(BEYOND in trial.user_attrs for trial in taken)
        running = any(trial.state == TrialState.RUNNING for trial in taken)
        if running or len(taken) - done < self.search.trials or done >= extend.trials:
            return None
        return beyond(best.params, [trial.params for trial in taken], self.cell.parameters, extend.factor)

    def claim(self) -> ClaimedTrial | None:
        """Claim the next trial; ``None`` if all trials are taken, or another worker was first."""
        if not self._open():
            return None
        self._queue_again()
        self._queue_point()
        trial = self.study().ask()
        number = int(trial.user_attrs.get(ORIGIN, trial.number))
        trial.set_user_attr(WORKER, str(self.ledger.worker))
        trial.set_user_attr(PULSE, 0)
        trial.set_user_attr(RUN, f"{self.cell.name},trial={number}")
        outside = trial.user_attrs.get(BEYOND, {})
        parameters = {p.key: suggest(trial, p, outside.get(p.key) if p.log else None) for p in self.cell.parameters}
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
                kept = {key: last.user_attrs[key] for key in (POINT, BEYOND) if key in last.user_attrs}
                self.study().enqueue_trial(dict(last.params), user_attrs={ORIGIN: number, **kept})

    @property
    def _is_grid(self) -> bool:
        return self.search.sampler.class_name == "GridSampler"

    def _points(self) -> list[dict[str, Any]]:
        """Return the points that are tried before the sampler draws any: the whole grid, or the common first points."""
        if not self._is_grid:
            return first_points(self.search, self.cell.parameters)
        keys = [parameter.key for parameter in self.cell.parameters]
        points = list(itertools.product(*(p.values or () for p in self.cell.parameters)))
        random.Random(0).shuffle(points)  # the same order in every cell, so that few trials are no corner of the grid
        return [dict(zip(keys, point, strict=True)) for point in points]

    def _queue_point(self) -> None:
        """Queue the next point that was not tried, or the values of a trial beyond the ends of ranges.

        Optuna's sampler of grids skips a point if its worker died before the values were known.
        """
        if any(t.state == TrialState.WAITING for t in self.ledger.attempts()):
            return
        outside = self._beyond()
        if outside is not None:
            self.study().enqueue_trial(outside, user_attrs={POINT: True, BEYOND: outside})
            return
        tried = [trial.params for trial in self.taken() if self._is_grid or POINT in trial.user_attrs]
        untried = next((point for point in self._points() if point not in tried), None)
        if untried is not None:
            self.study().enqueue_trial(untried, user_attrs={POINT: True})

    def _repeats(self, trial: Trial, parameters: Mapping[str, Any]) -> bool:
        """Whether an earlier trial has the same point, without attempts at the same trial."""
        if ORIGIN in trial.user_attrs or not (self._is_grid or POINT in trial.user_attrs):
            return False
        others = [t for t in self.taken() if ORIGIN not in t.user_attrs and (self._is_grid or POINT in t.user_attrs)]
        return any(t.number < trial.number and t.params == parameters for t in others)

    def _taken_by_others(self, trial: Trial, number: int) -> bool:
        """Whether another worker has taken this trial, or all trials."""
        for other in self.trials().get(number, []):
            ended = other.state in (TrialState.COMPLETE, TrialState.PRUNED)
            if other.number != trial.number and (
                ended or (other.state == TrialState.RUNNING and other.number < trial.number)
            ):
                return True
        if BEYOND in trial.user_attrs:
            return False
        taken = [t for t in self.taken() if BEYOND not in t.user_attrs]
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
            sampler=sampler(self.search.sampler, self.cell.parameters, seed, self.search.common),
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
