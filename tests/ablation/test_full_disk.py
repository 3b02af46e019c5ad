"""A full disk ends no study, and uses up no retries of its runs."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from smoa_lightning.ablation.execution import supervisor as supervising
from smoa_lightning.ablation.execution.ledger import ENDED, count
from smoa_lightning.ablation.execution.live import Display
from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.execution.supervisor import Supervisor
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.common.disk_errors import FULL_STATUS
from smoa_lightning.records.record import TRIALS
from tests.ablation.small_study import study_file, work


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def wrapped(*_: Any, **__: Any) -> Any:
    """Raise what torch writes instead of an error of the disk, with the error of the record on top."""
    try:
        raise RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")
    except RuntimeError as error:
        raise ValueError("the record cannot be written") from error


@pytest.mark.parametrize("fault", [full, wrapped])
def test_a_run_without_space_ends_its_worker_and_is_no_failure(tmp_path: Path, fault: Any) -> None:
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out", fault)
    for _ in range(5):  # more often than there are retries
        with pytest.raises((OSError, ValueError)):
            worker.step()
    attempts = worker.status.final.attempts()
    assert [trial.user_attrs[ENDED] for trial in attempts] == ["stopped"] * 5
    work(study, tmp_path / "out").until_done(poll=0.01)
    assert worker.status.ended()
    assert worker.status.failures() == []


# Each worker does two runs and then has no space, in the middle of a run, and cannot write to the journal any more.
WORKER = f"""
import os, sys
from tests.ablation import fake_worker
original, begun = fake_worker.fit, []
def fit(run, *rest, **named):
    begun.append(run)
    if len(begun) == 3:
        os._exit({FULL_STATUS})
    original(run, *rest, **named)
object.__setattr__(fake_worker.TOOLS, "fit", fit)
sys.argv = ["fake_worker", *sys.argv[1:]]
fake_worker.main()
"""


class SmallDisk(Supervisor):
    def command(self, number: int) -> list[str]:
        return [sys.executable, "-c", WORKER, self.args[0], str(self.folder), "", str(number)]


def test_a_supervisor_waits_for_space_and_ends_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The workers and the supervisor itself meet a full disk several times; all 12 runs are done, without a failure."""
    file, folder = study_file(tmp_path, study_file(tmp_path).read_text().replace("retries: 1", "retries: 0")), None
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(supervising, "REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(supervising, "FULL_SECONDS", 0.2)
    refresh, calls = Display.refresh, []

    def sometimes_full(self: Display) -> None:
        calls.append(1)
        if len(calls) in (2, 3, 9):
            full()
        refresh(self)

    monkeypatch.setattr(Display, "refresh", sometimes_full)
    folder = tmp_path / "out"
    supervisor = SmallDisk(load_study([file]), folder, open_storage(None, folder), 2, [str(file)])
    supervisor.run()
    attempts = supervisor.status.final.attempts()
    assert sum(trial.state == TrialState.COMPLETE for trial in attempts) == 12
    assert count(attempts, "error") == 0
    assert count(attempts, "stopped") + count(attempts, "died") >= 4  # the other worker may be first to notice
    assert (folder / TRIALS).is_file()
    assert sum("the disk is full: the study continues" in record.message for record in caplog.records) == 1


def test_the_last_file_of_a_study_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study([study_file(tmp_path)])
    folder = tmp_path / "out"
    work(study, folder).until_done(poll=0.01)
    supervisor = Supervisor(study, folder, open_storage(None, folder), 1, [])
    monkeypatch.setattr(supervising, "write_trials", full)
    supervisor.run()
    assert supervisor.status.ended()
