"""The process that a user starts: it starts workers, replaces dead workers, and displays the status of the study."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.trial import TrialState
from rich.console import Console

from smoa_lightning.ablation.execution.devices import environment_of
from smoa_lightning.ablation.execution.folders import Folders
from smoa_lightning.ablation.execution.ledger import ORPHANED, REASON, RUN
from smoa_lightning.ablation.execution.live import Display
from smoa_lightning.ablation.execution.progress import write_trials
from smoa_lightning.ablation.execution.status import StudyStatus, failure_text
from smoa_lightning.ablation.execution.worker_id import Watch, WorkerId
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.common import console, user_program
from smoa_lightning.common.disk_errors import FULL_STATUS, disk_is_full
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.parent import PARENT
from smoa_lightning.data.tasks import registered_tasks
from smoa_lightning.records.record import TRIALS

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
FULL_SECONDS = 30.0  # time without new workers after the disk was full
STOP_SECONDS = 60.0  # time for a worker to end its step and release its run
END_SECONDS = 60  # for workers to end by themselves after the last run
QUICK_DEATHS = 3  # the study ends after so many workers that failed at their start
KILLED = 20  # the study ends after so many workers in a row that were killed at their start, for example without memory
SETTLED = datetime.timedelta(minutes=2)  # after this time a network file system shows the files of other machines


class Supervisor:
    """Runs a study on this machine.

    Args:
        study: The study.
        folder: The study folder.
        storage: The storage of its attempts.
        workers: Number of worker processes.
        args: Arguments of ``ablate``, for the workers.

    Raises:
        UserError: The storage has a different study with this name.
    """

    def __init__(self, study: Study, folder: Path, storage: BaseStorage, workers: int, args: list[str]) -> None:
        self.study, self.folder, self.storage, self.count, self.args = study, folder, storage, workers, args
        self.status = StudyStatus(study, storage, WorkerId.of(os.getpid()), Watch())
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.started: dict[int, float] = {}
        self.quick_deaths = self.killed = self.waits = 0
        self.continues = 0.0  # no worker starts before this time, because the disk is full
        self.released: list[int] = []  # processes that a full disk has ended, and whose attempts are still open

    def reset_failures(self) -> None:
        """Ignore all failures so far."""
        for ledger in (self.status.final, *(search.ledger for search in self.status.searches.values())):
            ledger.reset_failures()

    def _folders(self) -> Folders:
        return Folders(self.study.name, self.folder, self.study.keep)

    def reopen_lost(self) -> list[str]:
        """Reopen finished runs with a missing or damaged folder, as after a power failure; return their names."""
        folders, attempts = self._folders(), self.status.final.by_signature()
        lost: dict[int, str] = {}
        for cell in self.study.cells:
            for run in self.status.final_runs(cell):
                done = [t for t in attempts.get(run.signature, []) if t.state == TrialState.COMPLETE]
                ended = done[-1].datetime_complete if done else None
                if ended is not None and datetime.datetime.now() - ended > SETTLED and folders.finished(run) is None:
                    lost |= dict.fromkeys((trial.number for trial in done), run.name)
        if lost:
            self.status.final.invalidate(lost)
        return list(dict.fromkeys(lost.values()))

    def aggregate_again(self) -> None:
        """Write the aggregates of all finished cells again, as after a change of the seeds."""
        from smoa_lightning.ablation.execution.aggregate import write_cell

        for cell in self.study.cells:
            records = [self._folders().finished(run) for run in self.status.final_runs(cell)]
            done = [record for record in records if record is not None]
            if done and len(done) == len(records):
                write_cell(self.folder, cell, done)

    def orphaned(self) -> list[str]:
        """Return the runs that workers of a killed supervisor have stopped, and that were not tried since."""
        names = []
        for ledger in (self.status.final, *(search.ledger for search in self.status.searches.values())):
            for attempts in ledger.by_signature().values():
                if attempts[-1].user_attrs.get(REASON) == ORPHANED:
                    names.append(str(attempts[-1].user_attrs.get(RUN)))
        return names

    def run(self) -> None:
        """Keep the workers running until all runs have ended.

        Raises:
            UserError: Runs failed, or workers die at their start.
            KeyboardInterrupt: Ctrl-C; the workers have released their runs.
        """
        self._folders().remove_leftovers()
        with Display(self.status, self.folder, Console(quiet=console.is_quiet())) as display:
            try:
                while not self._step(display):
                    time.sleep(REFRESH_SECONDS)
                self._wait(END_SECONDS)  # a worker may still write the aggregate of the last cell
            finally:
                self._stop()
                self._write_trials()
        print(f"{self.folder}   (python -m smoa_lightning report {self.folder}; tensorboard --logdir {self.folder})")
        failures = self.status.failures()
        if failures:
            raise UserError(failure_text(failures))

    def _step(self, display: Display) -> bool:
        """Start missing workers and show the status; return whether all runs have ended. Wait if the disk is full."""
        try:
            ended = self.status.ended()
            if not ended:
                self._replace()
            display.refresh()
        except UserError:
            raise
        except Exception as error:  # the storage has errors of its own
            if not disk_is_full(error):
                raise
            self._wait_for_space()
            return False
        return ended

    def _wait_for_space(self) -> None:
        """Start no worker for some time, and say once why."""
        if not self.waits:
            logger.warning(
                "the disk is full: the study continues when there is space; runs in progress lose only the steps since "
                "their last checkpoint"
            )
        self.waits += 1
        self.continues = time.monotonic() + FULL_SECONDS

    def _write_trials(self) -> None:
        try:
            write_trials(self.folder, self.status)
        except Exception as error:
            if not disk_is_full(error):
                raise
            logger.warning(
                "the disk is full: %s lacks the last trials; run the same command again", self.folder / TRIALS
            )

    def _replace(self) -> None:
        """Start missing workers."""
        while self.released:
            self.status.release(self.released[-1], "the disk was full")
            self.released.pop()
        if time.monotonic() < self.continues:
            return
        for number in range(self.count):
            process = self.processes.get(number)
            if process is not None and process.poll() is None:
                continue
            if process is not None:
                del self.processes[number]
                self._died(number, process)
            if time.monotonic() < self.continues:
                return
            if not self.status.ended():
                self._start(number)

    def command(self, number: int) -> list[str]:
        """Return the command of a worker."""
        flags = [*console.flags(), f"--worker_number={number}"]
        return [sys.executable, "-m", "smoa_lightning", "ablate", *self.args, *flags]

    def _start(self, number: int) -> None:
        log = self.log(number)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            **environment_of(number, self.count),
            "PYTHONUNBUFFERED": "1",
            PARENT: str(os.getpid()),
            **(user_program.environment() if registered_tasks() else {}),
        }
        with log.open("ab") as stream:
            self.processes[number] = subprocess.Popen(
                self.command(number),
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # workers get Ctrl-C only from this process
            )
        self.started[number] = time.monotonic()

    def _died(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """Raise an error if workers cannot start. A worker that its run has killed is replaced."""
        if process.returncode == 0:
            return
        if process.returncode == FULL_STATUS:
            self.released.append(process.pid)
            self._wait_for_space()
            return
        if process.returncode > 0 and time.monotonic() - self.started[number] < 60:
            self.quick_deaths += 1
        did = self.status.known(process.pid)
        self.killed = 0 if did else self.killed + 1
        if process.returncode == 2 or self.quick_deaths >= QUICK_DEATHS or self.killed >= KILLED:
            lines = self.log(number).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1].removeprefix("smoa_lightning: ") if lines else f"exit status {process.returncode}"
            raise UserError(f"worker {number} stopped: {last} (complete log: {self.log(number)})")

    def log(self, number: int) -> Path:
        """Return the log file of a worker."""
        return self.folder / "logs" / f"worker-{number}.log"

    def _stop(self) -> None:
        """Ask the workers to stop, and wait until they have."""
        alive = [process for process in self.processes.values() if process.poll() is None]
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        self._wait(STOP_SECONDS)
        for process in alive:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _wait(self, seconds: float) -> None:
        """Wait until the workers have ended, at most some seconds in all."""
        limit = time.monotonic() + seconds
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, limit - time.monotonic()))
