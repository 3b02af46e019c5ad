"""Claims, dead workers and storages: no result is lost and no run is done twice. No run of these tests trains."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from smoa_lightning.ablation.execution import supervisor as supervising
from smoa_lightning.ablation.execution.ledger import Ledger, run_state
from smoa_lightning.ablation.execution.status import StudyStatus
from smoa_lightning.ablation.execution.storage import close_storage, drop_unfinished_line, open_storage
from smoa_lightning.ablation.execution.supervisor import Supervisor
from smoa_lightning.ablation.execution.work import Work
from smoa_lightning.ablation.execution.worker_id import Watch, WorkerId
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.commands.ablate import stopping_like_ctrl_c
from smoa_lightning.common.errors import UserError
from tests.ablation import fake_worker
from tests.ablation.servers import mysql_server, postgresql_server
from tests.ablation.small_study import study_file, work


def storages(folder: Path) -> list[Any]:
    return [open_storage(None, folder) for _ in range(2)]


def test_the_first_of_two_claims_gets_the_run(tmp_path: Path) -> None:
    me = WorkerId.of(os.getpid())
    one, two = (Ledger(storage, "s", "maximize", me, Watch()) for storage in storages(tmp_path))
    attempt = one.claim("run", "signature", {})
    assert attempt is not None
    assert two.claim("run", "signature", {}) is None
    assert run_state(two.by_signature()["signature"], 0) == "running"
    assert one.complete(attempt, 0.5, 1.0)
    assert two.claim("run", "signature", {}) is None
    assert run_state(two.by_signature()["signature"], 0) == "done"


def test_a_suspended_worker_that_counts_as_dead_cannot_store_its_result(tmp_path: Path) -> None:
    now = [0.0]
    elsewhere = WorkerId("another machine".replace(" ", "_"), 1, "1")
    first, other = storages(tmp_path)
    suspended = Ledger(first, "s", "maximize", elsewhere, Watch())
    ledger = Ledger(other, "s", "maximize", WorkerId.of(os.getpid()), Watch(grace=90, clock=lambda: now[0]))
    attempt = suspended.claim("run", "signature", {})
    assert attempt is not None
    for now[0] in (0.0, 89.0):
        assert ledger.reap_dead() == []
    suspended.storage.set_trial_user_attr(attempt, "pulse", 1)
    for now[0] in (100.0, 189.0):
        assert ledger.reap_dead() == []  # its last sign of life was at 100 or before
    now[0] = 191.0
    assert [t.number for t in ledger.reap_dead()] == [0]
    again = ledger.claim("run", "signature", {})
    assert again is not None
    assert not suspended.complete(attempt, 0.1, 1.0)
    assert ledger.complete(again, 0.5, 1.0)
    assert [t.value for t in ledger.attempts() if t.state == TrialState.COMPLETE] == [0.5]


def test_signs_of_life_are_stored(tmp_path: Path) -> None:
    ledger = Ledger(storages(tmp_path)[0], "s", "maximize", WorkerId.of(os.getpid()), Watch())
    attempt = ledger.claim("run", "signature", {})
    assert attempt is not None
    with ledger.beating(attempt, seconds=0.02):
        limit = time.monotonic() + 10
        while ledger.attempts()[0].user_attrs["pulse"] < 2 and time.monotonic() < limit:
            time.sleep(0.02)
    assert ledger.attempts()[0].user_attrs["pulse"] >= 2


def test_workers_of_this_machine_are_checked_by_their_processes() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = WorkerId.of(process.pid)
    assert WorkerId.parse(str(worker)) == worker
    assert worker.alive() is True
    assert WorkerId(worker.machine, worker.pid, "7").alive() is False  # its process number was used again
    assert WorkerId("elsewhere", worker.pid, worker.started).alive() is None
    process.kill()
    deadline = time.monotonic() + 10
    while worker.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.alive() is False  # dead, although its parent has not waited for it
    process.communicate()
    assert WorkerId.parse("nonsense") is None


def test_an_unfinished_line_is_removed_from_the_journal(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    work(study, tmp_path / "out").step()
    journal = tmp_path / "out" / "storage.log"
    with journal.open("ab") as stream:
        stream.write(b'{"op_code": 4, "worker')  # as after a power failure
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    assert sum(cell.done for cell in worker.status.cells()) == 12
    for text, remaining in ((b"", b""), (b"abc", b""), (b"a\n" + b"b" * 9000, b"a\n"), (b"a\nb\n", b"a\nb\n")):
        journal.write_bytes(text)
        drop_unfinished_line(journal)
        assert journal.read_bytes() == remaining


def test_another_study_in_the_same_storage_is_refused(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    me = WorkerId.of(os.getpid())
    first = load_study([study_file(tmp_path)])
    StudyStatus(first, storage, me, Watch())
    StudyStatus(load_study([study_file(tmp_path)], [("axes.r", "[2, 4, 32]")]), storage, me, Watch())  # it may grow
    other = load_study([study_file(tmp_path)], [("data.batch_size", "4")])
    with pytest.raises(
        UserError, match="the storage has a different study 'grid': its cell r=2 has different settings"
    ):
        StudyStatus(other, storage, me, Watch())


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("postgresql+psycopg://me:secret@127.0.0.1:1/none", r"me:\*\*\*@.* cannot be reached: .*[Cc]onnection"),
        ("nonsense", "--storage nonsense cannot be reached: "),
        ("postgresql+nodriver://a@b/c", "cannot be reached|not installed"),
    ],
)
def test_a_storage_that_cannot_be_reached(tmp_path: Path, url: str, match: str) -> None:
    if "psycopg" in url:
        pytest.importorskip("psycopg", reason="psycopg is not installed (extra 'postgresql')")
    with pytest.raises(UserError, match=match) as raised:
        open_storage(url, tmp_path)
    assert "secret" not in str(raised.value)


# --------------------------------------------------------------------------------- workers as processes, and their ends


class FakeSupervisor(Supervisor):
    """Starts workers that do not train."""

    def command(self, number: int) -> list[str]:
        study, url = self.args
        return [sys.executable, fake_worker.__file__, study, str(self.folder), url, str(number)]


def run_study_with_kills(tmp_path: Path, url: str, kills: int, monkeypatch: pytest.MonkeyPatch, request: Any) -> Work:
    """Do 12 runs with two workers; several times, one of them is killed at a random moment."""
    file, folder = study_file(tmp_path), tmp_path / "out"
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(supervising, "REFRESH_SECONDS", 0.05)
    study = load_study([file])
    storage = open_storage(url or None, folder)
    request.addfinalizer(lambda: close_storage(storage))
    supervisor = FakeSupervisor(study, folder, storage, 2, [str(file), url])
    killed = 0
    draw = random.Random(0)

    def kill() -> None:
        nonlocal killed
        while killed < kills and not over.wait(draw.uniform(0.2, 0.6)):
            log = tmp_path / "log"
            begun = log.read_text().count("begin") if log.is_file() else 0
            alive = [p for p in list(supervisor.processes.values()) if p.poll() is None]
            if alive and begun > killed:  # at least one run begins between two kills, so that the study continues
                os.kill(draw.choice(alive).pid, signal.SIGKILL)
                killed += 1

    over = threading.Event()
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        supervisor.run()
    finally:
        over.set()
        thread.join()
    assert killed == kills
    return Work(study, folder, storage, fake_worker.TOOLS, WorkerId.of(1))


def server(kind: str, folder: Path) -> Any:
    return {"postgresql": postgresql_server, "mysql": mysql_server}[kind](folder)


@pytest.mark.parametrize("kind", ["journal", "postgresql", "mysql"])
def test_killed_workers_lose_nothing_and_repeat_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    url = "" if kind == "journal" else request.getfixturevalue("database")(kind)
    monkeypatch.setenv("FAKE_SECONDS", "0.8")
    kills = 10 if kind == "journal" else 3
    worker = run_study_with_kills(tmp_path, url, kills, monkeypatch, request)
    complete = [t for t in worker.status.final.attempts() if t.state == TrialState.COMPLETE]
    assert len(complete) == 12
    assert len({t.user_attrs["signature"] for t in complete}) == 12
    assert not [t for t in worker.status.final.attempts() if t.state == TrialState.RUNNING]
    for run in worker.study.final_runs():
        record = worker.folders.finished(run)
        assert record is not None
        assert record["metrics"]["report/acc"] == fake_worker.score(run)
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 12
    lines = (tmp_path / "log").read_text().splitlines()
    ends = [line for line in lines if line.startswith("end")]
    assert len(ends) == len(set(ends))  # no run ended twice
    assert len(ends) >= 12 - kills  # a kill after the record costs the line, and no run
    assert not [line for line in lines if line.startswith("again")]  # no finished run was run once more
    assert not (tmp_path / "out" / "superseded").exists()  # nor moved away and run once more


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start a database server that ends with the test."""
    stack = []

    def start(kind: str) -> str:
        running = server(kind, tmp_path_factory.mktemp(kind))
        stack.append(running)
        return str(running.__enter__())

    yield start
    for running in stack:
        running.__exit__(None, None, None)


def supervisor_of(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """Return a supervisor with one worker that runs the given code instead of its own."""
    study, out = load_study([study_file(folder)]), folder / "out"
    supervisor = Supervisor(study, out, open_storage(None, out), 1, [])
    monkeypatch.setattr(supervisor, "command", lambda number: [sys.executable, "-c", code])
    monkeypatch.setattr(supervising, "REFRESH_SECONDS", 0.01)
    return supervisor


def test_workers_that_cannot_start_end_the_study_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = supervisor_of("import sys; sys.exit('no disk')", tmp_path, monkeypatch)
    with pytest.raises(UserError, match="worker 0 stopped: no disk"):
        supervisor.run()


def test_workers_that_are_killed_before_they_do_anything_end_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = "import os; print('too much memory', flush=True); os.kill(os.getpid(), 9)"
    supervisor = supervisor_of(kill, tmp_path, monkeypatch)
    monkeypatch.setattr(supervising, "KILLED", 4)
    with pytest.raises(UserError, match="worker 0 stopped: too much memory"):
        supervisor.run()
    assert supervisor.log(0).read_text().count("too much memory") == 4


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGHUP])
def test_signals_of_a_batch_system_stop_a_study_as_ctrl_c_does(name: signal.Signals) -> None:
    before = signal.getsignal(name)
    with pytest.raises(KeyboardInterrupt), stopping_like_ctrl_c():
        signal.raise_signal(name)
    assert signal.getsignal(name) == before
