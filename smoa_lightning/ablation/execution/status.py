"""The status of a study, read from the storage: which runs are done, running, failed or open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from smoa_lightning.ablation.execution.ledger import REASON, SECONDS, WORKER, Ledger, count, run_state
from smoa_lightning.ablation.execution.trials import CellSearch, seeds_suffix
from smoa_lightning.ablation.execution.worker_id import Watch, WorkerId
from smoa_lightning.ablation.study.objective import DIRECTIONS
from smoa_lightning.ablation.study.space import Cell, Run, Study
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.machine import machine

SIGNATURES = "signatures"


@dataclass(frozen=True)
class Failure:
    """A run that failed too often.

    Args:
        run: Name of the run.
        cell: Name of its cell.
        attempts: Number of failed attempts.
        reason: Why the last attempt failed.
    """

    run: str
    cell: str
    attempts: int
    reason: str


def failure_text(failures: Sequence[Failure]) -> str:
    """Return one sentence about failed runs. Only runs that were tried can be tried again.

    >>> no_value = Failure("r=2, final runs", "r=2", 0, "no trial was completed")
    >>> failure_text([no_value])
    'r=2, final runs failed: no trial was completed; give a study of another --name other values'
    >>> failure_text([no_value, Failure("r=4,seed=0", "r=4", 2, "out of memory.")])
    'r=4,seed=0 and 1 more failed: out of memory; fix it and add --retry_failed'
    """
    first = next((failure for failure in failures if failure.attempts), failures[0])
    more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
    remedy = "fix it and add --retry_failed" if first.attempts else "give a study of another --name other values"
    return f"{first.run}{more} failed: {first.reason.rstrip('.')}; {remedy}"


@dataclass(frozen=True)
class CellStatus:
    """The status of one cell.

    Args:
        cell: Name of the cell.
        planned: Number of final runs and trials.
        done: Number of done runs and trials; pruned trials are done.
        running: Workers that run the cell.
        failed: Number of runs and trials that failed too often.
        values: Results of the final runs.
        seconds: Seconds of each run.
    """

    cell: str
    planned: int
    done: int
    running: tuple[str, ...]
    failed: int
    values: tuple[float, ...]
    seconds: tuple[float, ...]


class StudyStatus:
    """The status of a study in its storage.

    Args:
        study: The study.
        storage: The storage of its attempts.
        worker: This worker.
        watch: Watches the other workers.

    Raises:
        UserError: The storage has a different study with this name.
    """

    def __init__(self, study: Study, storage: BaseStorage, worker: WorkerId, watch: Watch) -> None:
        self.study, self.storage = study, storage
        direction = str(study.objective.direction)
        self.final = Ledger(storage, f"{study.name}/final", direction, worker, watch)
        self._check_same_study()
        self.searches: dict[str, CellSearch] = {}
        for cell in study.cells if study.search is not None else ():
            assert study.search is not None
            name = f"{study.name}/search/{cell.name}"
            ledger = Ledger(storage, name + seeds_suffix(study.search), DIRECTIONS[cell.search_metric], worker, watch)
            self.searches[cell.name] = CellSearch(ledger, cell, study.search, study.retries)
            if ledger.is_new:
                self.searches[cell.name].queue_trials_of_other_seeds(name)
        self._runs: dict[tuple[str, int, str], Run] = {}

    def _check_same_study(self) -> None:
        """Refuse a storage with a different study of this name, since several people may share a server."""
        known = self.storage.get_study_user_attrs(self.final.study_id).get(SIGNATURES, {})
        mine = {cell.name: cell.signature for cell in self.study.cells}
        for name, signature in known.items():
            if mine.get(name, signature) != signature:
                raise UserError(
                    f"the storage has a different study {self.study.name!r}: its cell {name} has different settings; "
                    "choose a different --name for this study"
                )
        if known | mine != known:
            self.storage.set_study_user_attr(self.final.study_id, SIGNATURES, known | mine)

    # ------------------------------------------------------------------------------------------------------- final runs

    def final_runs(self, cell: Cell) -> Iterator[Run]:
        """Yield the final runs of a cell; none while its search is running, or if no trial was completed."""
        parameters = {}
        if cell.name in self.searches:
            search = self.searches[cell.name]
            best = search.best() if search.ended() else None
            if best is None:
                return
            parameters = best.params
        for seed in self.study.seeds:
            place = cell.name, seed, repr(sorted(parameters.items()))
            if place not in self._runs:
                self._runs[place] = self.study.final_run(cell, seed, parameters)
            yield self._runs[place]

    def open_runs(self) -> Iterator[Run]:
        """Yield the final runs that no worker has claimed, cell by cell."""
        attempts = self.final.by_signature()
        for cell in self.study.cells:
            for run in self.final_runs(cell):
                if run_state(attempts.get(run.signature, []), self.study.retries) == "open":
                    yield run

    def known(self, pid: int) -> bool:
        """Whether a worker of this machine has ever claimed a run or a trial."""
        name = str(WorkerId.of(pid))
        ledgers = [self.final, *(search.ledger for search in self.searches.values())]
        return any(trial.user_attrs.get(WORKER) == name for ledger in ledgers for trial in ledger.attempts())

    def release(self, pid: int, reason: str) -> None:
        """End the attempts of a process of this machine that has ended, as stopped: they count as no failure."""
        for ledger in [self.final, *(search.ledger for search in self.searches.values())]:
            for trial in ledger.attempts():
                worker = WorkerId.parse(str(trial.user_attrs.get(WORKER, "")))
                own = worker is not None and (worker.machine, worker.pid) == (machine(), pid)
                if own and trial.state == TrialState.RUNNING:
                    ledger.end(trial._trial_id, "stopped", reason)

    def ended(self) -> bool:
        """Whether all runs are done or have failed too often."""
        if not all(search.ended() for search in self.searches.values()):
            return False
        attempts = self.final.by_signature()
        return all(
            run_state(attempts.get(run.signature, []), self.study.retries) in ("done", "failed")
            for cell in self.study.cells
            for run in self.final_runs(cell)
        )

    # ------------------------------------------------------------------------------------------------------- for people

    def cells(self) -> list[CellStatus]:
        """Return the status of each cell."""
        attempts = self.final.by_signature()
        return [self._cell(cell, attempts) for cell in self.study.cells]

    def _cell(self, cell: Cell, attempts: dict[str, list[FrozenTrial]]) -> CellStatus:
        runs = [attempts.get(run.signature, []) for run in self.final_runs(cell)]
        search = self.searches.get(cell.name)
        trials = list(search.trials().values()) if search else []
        done = [t for each in (*runs, *trials) for t in each if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        running = [t for each in (*runs, *trials) for t in each if t.state == TrialState.RUNNING]
        failed = sum(run_state(run, self.study.retries) == "failed" for run in runs)
        failed += sum(search.failed_too_often(each) for each in trials) if search else 0
        final = [t.value for each in runs for t in each if t.state == TrialState.COMPLETE]
        return CellStatus(
            cell=cell.name,
            planned=len(self.study.seeds) + (search.planned() if search else 0),
            done=len(done),
            running=tuple(str(t.user_attrs.get(WORKER, "")) for t in running),
            failed=failed,
            values=tuple(float(value) for value in final if value is not None),
            seconds=tuple(float(t.user_attrs[SECONDS]) for t in done if SECONDS in t.user_attrs),
        )

    def failures(self) -> list[Failure]:
        """Return the runs and trials that failed too often."""
        found = []
        attempts = self.final.by_signature()
        for cell in self.study.cells:
            for run in self.final_runs(cell):
                tried = attempts.get(run.signature, [])
                if run_state(tried, self.study.retries) == "failed":
                    found.append(_failure(run.name, cell.name, tried))
            search = self.searches.get(cell.name)
            for number, tried in (search.trials() if search else {}).items():
                if search is not None and search.failed_too_often(tried):
                    found.append(_failure(f"{cell.name},trial={number}", cell.name, tried))
            if search is not None and search.ended() and search.best() is None:
                found.append(Failure(f"{cell.name}, final runs", cell.name, 0, _no_value(search)))
        return found


def _no_value(search: CellSearch) -> str:
    """Return why a search has no best trial, with the reason of its last trial."""
    number, attempts = max(search.trials().items())
    return f"no trial was completed; trial {number}: {attempts[-1].user_attrs.get(REASON, 'no reason')}"


def _failure(run: str, cell: str, attempts: list[FrozenTrial]) -> Failure:
    tries = count(attempts, "error") + count(attempts, "died")
    return Failure(run, cell, tries, str(attempts[-1].user_attrs.get(REASON, "")))
