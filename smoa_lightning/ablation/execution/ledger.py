"""Attempts at runs, as trials of an Optuna study: how one worker at a time holds a run, and a dead one loses it.

Every attempt is a trial that is RUNNING from the moment it is there. Storages number trials one after another, so that
of several attempts at one run all workers agree on the first: it holds the run, the others end as lost. An attempt
whose worker is gone is ended by whoever finds it, once, since a trial that has ended can not be ended again: a worker
that was only asleep finds its own attempt ended when it comes to hand in its result, and drops it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from smoa_lightning.ablation.execution.worker_id import PULSE_SECONDS, Watch, WorkerId

RUN, SIGNATURE, WORKER, PULSE, ENDED, REASON = "run", "signature", "worker", "pulse", "ended", "reason"
SECONDS, FORGIVEN, VOID = "seconds", "forgiven", "void"
# Why an attempt has no result: its run raised an error, its worker died, it was stopped, another one was first.
End = Literal["error", "died", "stopped", "lost"]
MOST_DEATHS = 10  # a run that takes its worker with it every time must not do so for ever


class Pruned(Exception):
    """A trial was ended because others were better at the same step."""


class Ledger:
    """The attempts of one Optuna study.

    Args:
        storage: Where it is kept.
        name: Its name there.
        direction: ``maximize`` or ``minimize``; for ``optuna-dashboard`` and samplers.
        worker: Who this is.
        watch: What has been seen of others.
    """

    def __init__(self, storage: BaseStorage, name: str, direction: str, worker: WorkerId, watch: Watch) -> None:
        self.storage, self.name, self.worker, self.watch = storage, name, worker, watch
        wanted = StudyDirection.MAXIMIZE if direction == "maximize" else StudyDirection.MINIMIZE
        try:
            self.study_id = storage.create_new_study([wanted], name)
        except DuplicatedStudyError:
            self.study_id = storage.get_study_id_from_name(name)

    def attempts(self) -> list[FrozenTrial]:
        """Return all attempts, first to last."""
        return sorted(self.storage.get_all_trials(self.study_id, deepcopy=False), key=lambda trial: trial.number)

    def by_signature(self) -> dict[str, list[FrozenTrial]]:
        """Return the attempts at each run, first to last, without those that lost it, are forgiven or are void."""
        found: dict[str, list[FrozenTrial]] = {}
        forgiven, void = self.first_counted(), self.invalidated()
        for trial in self.attempts():
            gone = (trial.state == TrialState.FAIL and trial.number < forgiven) or trial.number in void
            if not gone and trial.user_attrs.get(ENDED) != "lost" and SIGNATURE in trial.user_attrs:
                found.setdefault(trial.user_attrs[SIGNATURE], []).append(trial)
        return found

    def reset_failures(self) -> None:
        """Let the failures so far no longer count, so that their runs are tried again."""
        attempts = self.attempts()
        self.storage.set_study_user_attr(self.study_id, FORGIVEN, attempts[-1].number + 1 if attempts else 0)

    def first_counted(self) -> int:
        """Return the number of the first attempt whose failure counts."""
        return int(self.storage.get_study_user_attrs(self.study_id).get(FORGIVEN, 0))

    def invalidated(self) -> set[int]:
        """Return the numbers of the attempts whose results are on disk no more."""
        return set(self.storage.get_study_user_attrs(self.study_id).get(VOID, ()))

    def invalidate(self, numbers: Iterable[int]) -> None:
        """Take attempts for never made, so that their runs are open again."""
        self.storage.set_study_user_attr(self.study_id, VOID, sorted(self.invalidated() | set(numbers)))

    def claim(self, run: str, signature: str, facts: Mapping[str, Any]) -> int | None:
        """Hold a run; return the attempt, or ``None`` if another one holds it or has done it.

        Args:
            run: Its name.
            signature: What decides its result.
            facts: What else is to be seen of it in the storage.
        """
        attrs = {RUN: run, SIGNATURE: signature, WORKER: str(self.worker), PULSE: 0, **facts}
        mine = self.storage.create_new_trial(
            self.study_id, template_trial=create_trial(state=TrialState.RUNNING, user_attrs=attrs)
        )
        number, void = self.storage.get_trial_number_from_id(mine), self.invalidated()
        for trial in self.attempts():
            same = trial.user_attrs.get(SIGNATURE) == signature and trial.number != number
            done = trial.state == TrialState.COMPLETE and trial.number not in void
            if same and (done or (trial.state == TrialState.RUNNING and trial.number < number)):
                self.end(mine, "lost", f"attempt {trial.number} was first")
                return None
        return mine

    def complete(self, attempt: int, value: float, seconds: float) -> bool:
        """Hand in a result; return whether it counts: not if the attempt was taken for dead in the meantime."""
        try:
            self.storage.set_trial_user_attr(attempt, SECONDS, seconds)
            self.storage.set_trial_state_values(attempt, TrialState.COMPLETE, [value])
        except UpdateFinishedTrialError:
            return False
        return True

    def prune(self, attempt: int, reason: str, seconds: float) -> bool:
        """End a trial that others have left behind; return whether it had not ended before."""
        try:
            self.storage.set_trial_user_attr(attempt, SECONDS, seconds)
            self.storage.set_trial_user_attr(attempt, REASON, reason)
            self.storage.set_trial_state_values(attempt, TrialState.PRUNED)
        except UpdateFinishedTrialError:
            return False
        return True

    def end(self, attempt: int, end: End, reason: str) -> bool:
        """End an attempt without a result; return whether it had not ended before."""
        try:
            self.storage.set_trial_user_attr(attempt, ENDED, end)
            self.storage.set_trial_user_attr(attempt, REASON, reason[:1000])
            self.storage.set_trial_state_values(attempt, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return True

    def reap_dead(self) -> list[FrozenTrial]:
        """End the attempts whose workers are gone; return those that nobody else has ended before."""
        gone = []
        for trial in self.attempts():
            if trial.state != TrialState.RUNNING:
                continue
            worker, pulse = trial.user_attrs.get(WORKER, ""), trial.user_attrs.get(PULSE)
            if self.watch.dead(trial._trial_id, worker, pulse) and self.end(
                trial._trial_id, "died", f"its worker {worker or 'unknown'} is gone"
            ):
                gone.append(trial)
        return gone

    @contextmanager
    def beating(self, attempt: int, seconds: float = PULSE_SECONDS) -> Iterator[None]:
        """Give signs of life while a run is under way."""
        stop = threading.Event()

        def beat() -> None:
            count = 0
            while not stop.wait(seconds):
                count += 1
                try:
                    self.storage.set_trial_user_attr(attempt, PULSE, count)
                except UpdateFinishedTrialError:
                    return  # taken for dead; found out when the result is handed in
                except Exception as error:  # a server that is away for a moment must not end the run
                    optuna.logging.get_logger(__name__).warning(f"no sign of life could be given: {error}")

        thread = threading.Thread(target=beat, name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def run_state(attempts: Sequence[FrozenTrial], retries: int) -> Literal["done", "running", "failed", "open"]:
    """Return how a run stands, from its attempts.

    >>> run_state([], retries=1)
    'open'
    """
    if any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in attempts):
        return "done"
    if any(trial.state == TrialState.RUNNING for trial in attempts):
        return "running"
    errors, deaths = count(attempts, "error"), count(attempts, "died")
    return "failed" if errors > retries or deaths > MOST_DEATHS else "open"


def count(attempts: Sequence[FrozenTrial], end: End) -> int:
    """Return how many attempts ended in a way."""
    return sum(trial.user_attrs.get(ENDED) == end for trial in attempts)
