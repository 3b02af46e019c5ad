"""Attempts at runs, stored as trials of an Optuna study, so that only one worker at a time has a run.

Every attempt is a trial that is RUNNING from its creation. The storage numbers trials one after another, so all workers
agree on which of several attempts at a run is the first. The first attempt has the run; the others end as lost. If a
worker is dead, the first worker that notices this ends its attempt. An ended trial cannot be ended again. So if the
worker was only suspended, it finds its attempt ended when it stores its result, and discards the result.
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
# Why an attempt has no result: its run raised an error, its worker died, it was stopped, another attempt was first.
End = Literal["error", "died", "stopped", "lost"]
ORPHANED = "stopped, since the process that started its worker was gone"  # reason of an attempt
MOST_DEATHS = 10  # a run that kills its worker is not tried more often


class Pruned(Exception):
    """A trial was ended early: other trials were better at the same step, or it has diverged."""


class Ledger:
    """The attempts of one Optuna study.

    Args:
        storage: The storage of the Optuna study.
        name: Name of the Optuna study.
        direction: ``maximize`` or ``minimize``; for ``optuna-dashboard`` and samplers.
        worker: This worker.
        watch: Watches the other workers.

    ``is_new`` is whether this object has created the Optuna study.
    """

    def __init__(self, storage: BaseStorage, name: str, direction: str, worker: WorkerId, watch: Watch) -> None:
        self.storage, self.name, self.worker, self.watch = storage, name, worker, watch
        self.direction = direction
        wanted = StudyDirection.MAXIMIZE if direction == "maximize" else StudyDirection.MINIMIZE
        try:
            self.study_id, self.is_new = storage.create_new_study([wanted], name), True
        except DuplicatedStudyError:
            self.study_id, self.is_new = storage.get_study_id_from_name(name), False

    def named(self, name: str) -> Ledger:
        """Return the attempts of another Optuna study in the same storage."""
        return Ledger(self.storage, name, self.direction, self.worker, self.watch)

    def attempts(self) -> list[FrozenTrial]:
        """Return all attempts in order."""
        return sorted(self.storage.get_all_trials(self.study_id, deepcopy=False), key=lambda trial: trial.number)

    def by_signature(self) -> dict[str, list[FrozenTrial]]:
        """Return the attempts at each run in order, without lost, reset and invalidated attempts."""
        attempts: dict[str, list[FrozenTrial]] = {}
        first_counted, void = self.first_counted(), self.invalidated()
        for trial in self.attempts():
            ignored = (trial.state == TrialState.FAIL and trial.number < first_counted) or trial.number in void
            if not ignored and trial.user_attrs.get(ENDED) != "lost" and SIGNATURE in trial.user_attrs:
                attempts.setdefault(trial.user_attrs[SIGNATURE], []).append(trial)
        return attempts

    def reset_failures(self) -> None:
        """Ignore all failures so far, so that the failed runs are tried again."""
        attempts = self.attempts()
        self.storage.set_study_user_attr(self.study_id, FORGIVEN, attempts[-1].number + 1 if attempts else 0)

    def first_counted(self) -> int:
        """Return the number of the first attempt that counts if it failed."""
        return int(self.storage.get_study_user_attrs(self.study_id).get(FORGIVEN, 0))

    def invalidated(self) -> set[int]:
        """Return the numbers of attempts without a result on disk any more."""
        return set(self.storage.get_study_user_attrs(self.study_id).get(VOID, ()))

    def invalidate(self, numbers: Iterable[int]) -> None:
        """Ignore attempts, so that their runs are open again."""
        self.storage.set_study_user_attr(self.study_id, VOID, sorted(self.invalidated() | set(numbers)))

    def claim(self, run: str, signature: str, facts: Mapping[str, Any]) -> int | None:
        """Claim a run; return the attempt, or ``None`` if another attempt has claimed or done the run.

        Args:
            run: Name of the run.
            signature: Signature of the run.
            facts: Further facts to show in the storage.
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
        """Store a result; return whether it counts. It does not if another worker has ended the attempt as dead."""
        try:
            self.storage.set_trial_user_attr(attempt, SECONDS, seconds)
            self.storage.set_trial_state_values(attempt, TrialState.COMPLETE, [value])
        except UpdateFinishedTrialError:
            return False
        return True

    def prune(self, attempt: int, reason: str, seconds: float) -> bool:
        """End a trial that is worse than others or has diverged; return ``False`` if it had already ended."""
        try:
            self.storage.set_trial_user_attr(attempt, SECONDS, seconds)
            self.storage.set_trial_user_attr(attempt, REASON, reason)
            self.storage.set_trial_state_values(attempt, TrialState.PRUNED)
        except UpdateFinishedTrialError:
            return False
        return True

    def end(self, attempt: int, end: End, reason: str) -> bool:
        """End an attempt without a result; return ``False`` if it had already ended."""
        try:
            self.storage.set_trial_user_attr(attempt, ENDED, end)
            self.storage.set_trial_user_attr(attempt, REASON, reason[:1000])
            self.storage.set_trial_state_values(attempt, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return True

    def reap_dead(self) -> list[FrozenTrial]:
        """End the attempts of dead workers; return the attempts that this call has ended."""
        reaped = []
        for trial in self.attempts():
            if trial.state != TrialState.RUNNING:
                continue
            worker, pulse = trial.user_attrs.get(WORKER, ""), trial.user_attrs.get(PULSE)
            if self.watch.dead(trial._trial_id, worker, pulse) and self.end(
                trial._trial_id, "died", f"its worker {worker or 'unknown'} is dead"
            ):
                reaped.append(trial)
        return reaped

    @contextmanager
    def beating(self, attempt: int, seconds: float = PULSE_SECONDS) -> Iterator[None]:
        """Store signs of life while a run is in progress."""
        stop = threading.Event()

        def beat() -> None:
            count = 0
            while not stop.wait(seconds):
                count += 1
                try:
                    self.storage.set_trial_user_attr(attempt, PULSE, count)
                except UpdateFinishedTrialError:
                    return  # another worker has ended this attempt; complete() reports it
                except Exception as error:  # a short failure of a server must not end the run
                    optuna.logging.get_logger(__name__).warning(f"cannot store a sign of life of this worker: {error}")

        thread = threading.Thread(target=beat, name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def run_state(attempts: Sequence[FrozenTrial], retries: int) -> Literal["done", "running", "failed", "open"]:
    """Return the state of a run from its attempts.

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
    """Return the number of attempts that ended in a given way."""
    return sum(trial.user_attrs.get(ENDED) == end for trial in attempts)
