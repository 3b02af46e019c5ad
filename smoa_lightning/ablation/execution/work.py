"""The loop of a worker: claim the next run, do it, store its result, until no run is left."""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import Trial

from smoa_lightning.ablation.execution.folders import CELLS, Folders, seconds_of
from smoa_lightning.ablation.execution.ledger import ORPHANED, Ledger, Pruned
from smoa_lightning.ablation.execution.progress import write_trials
from smoa_lightning.ablation.execution.status import StudyStatus
from smoa_lightning.ablation.execution.trials import CellSearch, ClaimedTrial
from smoa_lightning.ablation.execution.worker_id import Watch, WorkerId
from smoa_lightning.ablation.study.base_model import base_seeds, scored_with
from smoa_lightning.ablation.study.local_files import check_contents
from smoa_lightning.ablation.study.space import Cell, Run, Study
from smoa_lightning.common.console import ON_STDOUT
from smoa_lightning.common.disk_errors import disk_is_full
from smoa_lightning.common.errors import NotFinite, UserError, one_line
from smoa_lightning.common.parent import parent_is_gone
from smoa_lightning.records.record import RunInProgress

logger = logging.getLogger(__name__)
POLL_SECONDS = 2.0


class Fit(Protocol):
    """Does one run; :func:`smoa_lightning.ablation.execution.fitting.fit`."""

    def __call__(
        self, run: Run, folder: Path, facts: Mapping[str, Any], base: bool, callbacks: Sequence[Any] = ()
    ) -> None:
        """Leave a finished record in the folder, or raise."""


@dataclass(frozen=True)
class Tools:
    """The functions that do the runs, so that this file needs no torch.

    Args:
        fit: Does a run.
        aggregate: Writes the aggregate of a cell, from folder, cell and records.
        pruning: Makes the callback that reports scores to a trial, from trial and metric.
    """

    fit: Fit
    aggregate: Callable[[Path, Cell, Sequence[Mapping[str, Any]]], None]
    pruning: Callable[[Trial, str], Any]


class Work:
    """The work of one worker on a study.

    Args:
        study: The study.
        folder: The study folder.
        storage: The storage of the attempts.
        tools: The functions that do the runs.
        worker: This worker.
        watch: Watches the other workers.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        storage: BaseStorage,
        tools: Tools,
        worker: WorkerId,
        watch: Watch | None = None,
    ) -> None:
        self.study, self.folder, self.worker = study, folder, worker
        self.tools = tools
        self.status = StudyStatus(study, storage, worker, watch or Watch())
        self.folders = Folders(study.name, folder, study.keep)

    def until_done(self, poll: float = POLL_SECONDS) -> None:
        """Do runs until all have ended. Wait while other workers do the last runs, since these workers may die."""
        while not self.status.ended():
            self.reap_dead()
            if not self.step():
                time.sleep(poll)
        for cell in self.study.cells:  # a worker may have died between its last run and the aggregate
            if not (self.folder / CELLS / cell.name).is_dir():
                self._gather(cell)

    def reap_dead(self) -> None:
        """End the attempts of dead workers, so that their runs are open again."""
        for trial in self.status.final.reap_dead():
            logger.info("the worker of %s is dead: the run is open again", trial.user_attrs.get("run"))
        for search in self.status.searches.values():
            for trial in search.ledger.reap_dead():
                logger.info("the worker of %s is dead: the trial is open again", trial.user_attrs.get("run"))

    def step(self) -> bool:
        """Do one trial or final run; return whether there was one."""
        for cell in self.study.cells:
            search = self.status.searches.get(cell.name)
            if search is not None and (claimed := search.claim()) is not None:
                self._trial(cell, search, claimed)
                return True
        for run in self.status.open_runs():
            facts = {"cell": run.cell.name, "seed": run.seed, **run.parameters}
            attempt = self.status.final.claim(run.name, run.signature, facts)
            if attempt is not None:
                self._final(run, attempt)
                return True
        return False

    # ---------------------------------------------------------------------------------------------------- one run

    def _final(self, run: Run, attempt: int) -> None:
        ledger = self.status.final
        with Attempt(ledger, attempt, run.name) as result:
            record = self._done(run)
            result.value = score_of(record, f"report/{run.cell.report_metric}")
            result.seconds = seconds_of(record)
        if result.reason is None and not ledger.complete(attempt, result.value, result.seconds):
            logger.info(
                "another worker took over %s while this worker was suspended; this result is not used", run.name
            )
        with contextlib.suppress(OSError):
            self._gather(run.cell)  # two workers that end the last two seeds at the same time both write it

    def _gather(self, cell: Cell) -> None:
        """Write the aggregate of a cell if all its final runs are done."""
        records = [self.folders.finished(run) for run in self.status.final_runs(cell)]
        done = [record for record in records if record is not None]
        if done and len(done) == len(records):
            self.tools.aggregate(self.folder, cell, done)

    def _trial(self, cell: Cell, search: CellSearch, claimed: ClaimedTrial) -> None:
        """Run a trial with every seed of the search; its result is the mean.

        Values with which training diverges are no fault to fix: the trial is pruned, and not tried again.
        """
        ledger, values, seconds = search.ledger, [], 0.0
        runs: list[Run] = []
        name = f"{cell.name},trial={claimed.number}"
        with Attempt(ledger, claimed.attempt, name) as result:
            for index, seed in enumerate(search.search.seeds):
                run = self.study.search_run(cell, claimed.number, seed, claimed.parameters)
                runs.append(run)
                pruning = [self.tools.pruning(claimed.trial, cell.search_metric)] if index == 0 else []
                try:
                    record = self._done(run, pruning)
                    values.append(score_of(record, f"selection/{cell.search_metric}"))
                except NotFinite as error:
                    raise Pruned(f"diverged: {error}") from error
                seconds += seconds_of(record)
            result.value, result.seconds = statistics.fmean(values), seconds
        if result.pruned:
            ledger.prune(claimed.attempt, result.reason or "", result.seconds)
            for run in runs:
                self.folders.tidy(run)
        elif result.reason is None:
            ledger.complete(claimed.attempt, result.value, result.seconds)
        write_trials(self.folder, self.status)

    def _done(self, run: Run, callbacks: Sequence[Any] = ()) -> dict[str, Any]:
        """Return the record of a run: finished in this study, copied from another study, or done now."""
        base = self._scores_base(run)
        record = self.folders.finished(run) or self.folders.adopt(run, self.worker, base)
        if record is None:
            folder = self.folders.take(run)
            check_contents(self.study.contents)
            logger.info("running %s", run.name)
            self.tools.fit(run, folder, self.folders.facts(run, self.worker), base, callbacks)
            record = self.folders.finished(run)
            if record is None:
                raise RuntimeError(f"the run in {folder} ended without a finished record")
        self.folders.tidy(run)
        return record

    def _scores_base(self, run: Run) -> bool:
        """Whether a run scores the base model: once for all cells that share the score."""
        wanted = run.stage == "final" and run.seed in base_seeds(self.study, run.cell)
        return wanted and run.cell.name in scored_with(self.study).values()


class Attempt:
    """A run in progress: stores signs of life, and ends its attempt if the run fails.

    Ctrl-C is raised again after the attempt was released.
    """

    def __init__(self, ledger: Ledger, attempt: int, name: str) -> None:
        self.ledger, self.attempt, self.name = ledger, attempt, name
        self.value, self.seconds = math.nan, 0.0
        self.reason: str | None = None  # why there is no value
        self.pruned = False
        self._beating = ledger.beating(attempt)

    def __enter__(self) -> Attempt:
        self._beating.__enter__()
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        self._beating.__exit__(None, None, None)
        self.seconds = self.seconds or time.monotonic() - self._began
        if error is None:
            return False
        self.reason = one_line(error, kind=not isinstance(error, UserError))
        if isinstance(error, Pruned):
            self.pruned, self.reason = True, str(error)
            logger.info("%s: %s", self.name, error)
            return True
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self.ledger.end(self.attempt, "stopped", ORPHANED if parent_is_gone() else "stopped")
            return False
        if isinstance(error, RunInProgress):  # processes of a killed worker keep the lock of the folder a short time
            self.ledger.end(self.attempt, "stopped", self.reason)
            time.sleep(POLL_SECONDS)
            return True
        if isinstance(error, UpdateFinishedTrialError):
            return True  # this machine was suspended, and another worker has taken over the run
        if disk_is_full(error):  # no fault of the run: this worker ends, and the supervisor waits for space
            with contextlib.suppress(Exception):
                self.ledger.end(self.attempt, "stopped", self.reason)
            return False
        self.ledger.end(self.attempt, "error", self.reason)
        logger.warning("%s failed: %s", self.name, self.reason, extra=ON_STDOUT)
        return isinstance(error, Exception)


def score_of(record: Mapping[str, Any], metric: str) -> float:
    """Return a metric of a record.

    Raises:
        ValueError: The metric was not measured.
        NotFinite: The metric is not a finite number.
    """
    value = record["metrics"].get(metric)
    if value is None:
        raise ValueError(f"the run has no {metric}")
    if not math.isfinite(value):
        raise NotFinite(f"the run has no {metric}: it is {value}")
    return float(value)
