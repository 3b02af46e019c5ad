"""A study is carried out once, whatever happens to its workers; no run of these tests trains anything."""

from __future__ import annotations

import collections
import dataclasses
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from smoa_lightning.ablation.execution import supervisor as supervising
from smoa_lightning.ablation.execution.folders import Folders, marked
from smoa_lightning.ablation.execution.ledger import Ledger, status
from smoa_lightning.ablation.execution.live import Display, clock, table
from smoa_lightning.ablation.execution.standing import Standing
from smoa_lightning.ablation.execution.storage import close_storage, drop_unfinished_line, open_storage
from smoa_lightning.ablation.execution.supervisor import Supervisor
from smoa_lightning.ablation.execution.work import Work
from smoa_lightning.ablation.execution.worker_id import Watch, WorkerId
from smoa_lightning.ablation.expand import load_study
from smoa_lightning.ablation.space import Study
from smoa_lightning.errors import UserError
from tests.ablation import fake_worker
from tests.ablation.servers import mysql_server, postgresql_server
from tests.conftest import EXPERIMENTS

GRID = f"""
name: grid
base: [{EXPERIMENTS}/piqa.yaml, {EXPERIMENTS}/backbones/embedded.yaml]
axes: {{r: [2, 4, 8, 16]}}
baseline: {{r: 2}}
objective: acc
seeds: 3
retries: 1
"""
SEARCH = """
search:
  parameters: {lr: {low: 1e-3, high: 1e-1, log: true}}
  objective: acc
  trials: 5
"""


def study_file(folder: Path, text: str = GRID) -> Path:
    file = folder / "grid.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def work(study: Study, folder: Path, fit: Any = fake_worker.fit) -> Work:
    """A worker in this process."""
    storage = open_storage(None, folder)
    tools = dataclasses.replace(fake_worker.TOOLS, fit=fit)
    return Work(study, folder, storage, tools, WorkerId.of(os.getpid()), say=lambda _: None)


# --------------------------------------------------------------------------------------------------- one worker


def test_a_worker_does_every_run_once(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    standing = worker.standing
    runs = list(study.final_runs())
    assert len(runs) == 12
    assert [t.state for t in standing.final.attempts()] == [TrialState.COMPLETE] * 12
    by_cell = {cell.cell: cell.values for cell in standing.cells()}
    for run in runs:
        record = json.loads((tmp_path / "out" / "runs" / run.name / "record.json").read_text())
        assert record["ablation"]["signature"] == run.signature
        assert fake_worker.score(run) in by_cell[run.cell.name]
    worker.until_done(poll=0.01)
    assert len(standing.final.attempts()) == 12  # nothing was run again


def test_other_studies_are_not_run_again(tmp_path: Path) -> None:
    first, second = (load_study([study_file(tmp_path)], [("name", name)]) for name in ("first", "second"))
    work(first, tmp_path / "first").until_done(poll=0.01)
    (tmp_path / "first" / "study.json").write_text("{}")

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it was run again")

    work(second, tmp_path / "second", fit=never).until_done(poll=0.01)
    run = next(second.final_runs())
    record = json.loads((tmp_path / "second" / "runs" / run.name / "record.json").read_text())
    assert record["ablation"]["study"] == "second"
    assert record["ablation"]["reused_from"] == str(tmp_path / "first" / "runs" / run.name)
    assert record["metrics"]["report/acc"] == fake_worker.score(run)


def test_a_finished_run_whose_worker_died_before_it_told_is_not_run_again(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    run = next(study.final_runs())
    folder = worker.folders.take(run)
    fake_worker.fit(run, folder, worker.folders.facts(run, worker.worker), base=False)
    done: list[str] = []

    def fit(run: Any, *args: Any, **kwargs: Any) -> None:
        done.append(run.name)
        fake_worker.fit(run, *args, **kwargs)

    work(study, tmp_path / "out", fit=fit).until_done(poll=0.01)
    assert run.name not in done
    assert len(done) == 11


def test_failed_runs_are_retried_told_and_do_not_stop_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_SEED", "1")
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    failures = worker.standing.failures()
    assert [f.run for f in failures] == [f"r={r},seed=1" for r in (2, 4, 8, 16)]
    assert {f.attempts for f in failures} == {2}  # retries: 1
    assert failures[0].reason == "UserError: this seed always fails"
    assert sum(cell.done for cell in worker.standing.cells()) == 8
    monkeypatch.delenv("FAIL_SEED")
    worker.until_done(poll=0.01)
    assert sum(cell.done for cell in worker.standing.cells()) == 8  # given up
    worker.standing.final.forgive()
    worker.until_done(poll=0.01)
    assert sum(cell.done for cell in worker.standing.cells()) == 12
    assert worker.standing.failures() == []


def test_ctrl_c_gives_the_run_back(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    worker = work(study, tmp_path / "out", fit=stop)
    with pytest.raises(KeyboardInterrupt):
        worker.until_done(poll=0.01)
    (attempt,) = worker.standing.final.attempts()
    assert attempt.user_attrs["ended"] == "stopped"
    assert status([attempt], retries=0) == "open"


def test_a_run_that_scores_nothing_fails(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path, GRID.replace("retries: 1", "retries: 0"))], [("seeds", "1")])

    def fit(run: Any, folder: Path, *args: Any, **kwargs: Any) -> None:
        fake_worker.fit(run, folder, *args, **kwargs)
        record = json.loads((folder / "record.json").read_text())
        record["metrics"]["report/acc"] = float("nan")
        (folder / "record.json").write_text(json.dumps(record))

    worker = work(study, tmp_path / "out", fit=fit)
    worker.until_done(poll=0.01)
    assert "has no report/acc" in worker.standing.failures()[0].reason


# ------------------------------------------------------------------------------------------------------- searches


def test_search_then_final_runs_with_the_best_values(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path, GRID + SEARCH)])
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    trials = json.loads((tmp_path / "out" / "trials.json").read_text())
    for cell in study.cells:
        search = trials["searches"][cell.name]
        assert [t["state"] for t in search["trials"]] == ["COMPLETE"] * 5
        values = [t["value"] for t in search["trials"]]
        rates = [t["parameters"]["model.optimizer.init_args.lr"] for t in search["trials"]]
        assert len(set(rates)) == 5  # every draw is a new one, though each comes from a new sampler
        best = search["trials"][search["best"]]
        assert best["value"] == max(values)
        for seed in study.seeds:
            record = json.loads((tmp_path / "out" / "runs" / f"{cell.name},seed={seed}" / "record.json").read_text())
            assert record["ablation"]["parameters"] == best["parameters"]
    seeds = {json.loads(f.read_text())["ablation"]["seed"] for f in (tmp_path / "out" / "search").glob("*/record.json")}
    assert seeds == {1000}  # never a seed of the final runs


def test_a_search_that_grows_runs_its_cell_again_if_it_finds_better_values(tmp_path: Path) -> None:
    file = study_file(tmp_path, GRID + SEARCH)
    flags = [("axes.r", "[2]"), ("baseline", "{r: 2}"), ("seeds", "1")]
    few = work(load_study([file], [*flags, ("search.trials", "1")]), tmp_path / "out")
    few.until_done(poll=0.01)
    many = work(load_study([file], [*flags, ("search.trials", "12")]), tmp_path / "out")
    many.until_done(poll=0.01)
    search = many.standing.searches["r=2"]
    assert len(search.trials()) == 12
    best = search.best()
    assert best is not None
    assert best.number > 0  # true of these draws
    record = json.loads((tmp_path / "out" / "runs" / "r=2,seed=0" / "record.json").read_text())
    assert record["ablation"]["parameters"] == best.params
    assert len(list((tmp_path / "out" / "superseded").iterdir())) == 1  # nothing is lost


def test_a_trial_whose_worker_died_keeps_its_values_and_its_number(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path, GRID + SEARCH)], [("axes.r", "[2]"), ("baseline", "{r: 2}")])
    dead = WorkerId(WorkerId.of(os.getpid()).machine, 2**22 + 1, "1")  # no such process
    storage = open_storage(None, tmp_path / "out")
    standing = Standing(study, storage, dead, Watch())
    held = standing.searches["r=2"].claim()
    assert held is not None
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    attempts = worker.standing.searches["r=2"].trials()
    assert len(attempts) == 5
    assert [t.user_attrs.get("ended") for t in attempts[held.number]] == ["died", None]
    assert attempts[held.number][1].params == held.parameters
    assert (tmp_path / "out" / "search" / f"r=2,trial={held.number},seed=1000").is_dir()


def test_every_cell_has_as_many_trials_when_some_fail(tmp_path: Path) -> None:
    count = collections.Counter()

    def fit(run: Any, *args: Any, **kwargs: Any) -> None:
        count[run.name] += 1
        if run.stage == "search" and run.trial == 1:
            raise ValueError("no")
        fake_worker.fit(run, *args, **kwargs)

    study = load_study([study_file(tmp_path, GRID + SEARCH)], [("axes.r", "[2, 4]")])
    worker = work(study, tmp_path / "out", fit=fit)
    worker.until_done(poll=0.01)
    for cell in study.cells:
        attempts = worker.standing.searches[cell.name].trials()
        assert len(attempts) == 5
        assert len(attempts[1]) == 2  # retries: 1
        assert count[f"{cell.name},trial=1,seed=1000"] == 2
    assert [f.reason for f in worker.standing.failures()] == ["ValueError: no"] * 2


# ------------------------------------------------------------------------------------------- claims, deaths, storages


def storages(folder: Path) -> list[Any]:
    return [open_storage(None, folder) for _ in range(2)]


def test_of_two_claims_the_first_one_holds(tmp_path: Path) -> None:
    me = WorkerId.of(os.getpid())
    one, two = (Ledger(storage, "s", "maximize", me, Watch()) for storage in storages(tmp_path))
    attempt = one.claim("run", "signature", {})
    assert attempt is not None
    assert two.claim("run", "signature", {}) is None
    assert status(two.by_signature()["signature"], 0) == "running"
    assert one.complete(attempt, 0.5, 1.0)
    assert two.claim("run", "signature", {}) is None
    assert status(two.by_signature()["signature"], 0) == "done"


def test_a_sleeper_that_was_taken_for_dead_can_not_hand_in(tmp_path: Path) -> None:
    now = [0.0]
    elsewhere = WorkerId("another machine".replace(" ", "_"), 1, "1")
    sleeper, other = storages(tmp_path)
    asleep = Ledger(sleeper, "s", "maximize", elsewhere, Watch())
    ledger = Ledger(other, "s", "maximize", WorkerId.of(os.getpid()), Watch(grace=90, clock=lambda: now[0]))
    attempt = asleep.claim("run", "signature", {})
    assert attempt is not None
    for now[0] in (0.0, 89.0):
        assert ledger.bury() == []
    asleep.storage.set_trial_user_attr(attempt, "pulse", 1)
    for now[0] in (100.0, 189.0):
        assert ledger.bury() == []  # it gave a sign of life at 100 at the latest
    now[0] = 191.0
    assert [t.number for t in ledger.bury()] == [0]
    again = ledger.claim("run", "signature", {})
    assert again is not None
    assert not asleep.complete(attempt, 0.1, 1.0)
    assert ledger.complete(again, 0.5, 1.0)
    assert [t.value for t in ledger.attempts() if t.state == TrialState.COMPLETE] == [0.5]


def test_signs_of_life_are_given(tmp_path: Path) -> None:
    ledger = Ledger(storages(tmp_path)[0], "s", "maximize", WorkerId.of(os.getpid()), Watch())
    attempt = ledger.claim("run", "signature", {})
    assert attempt is not None
    with ledger.beating(attempt, seconds=0.02):
        limit = time.monotonic() + 10
        while ledger.attempts()[0].user_attrs["pulse"] < 2 and time.monotonic() < limit:
            time.sleep(0.02)
    assert ledger.attempts()[0].user_attrs["pulse"] >= 2


def test_processes_of_this_machine_are_looked_at() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = WorkerId.of(process.pid)
    assert WorkerId.parse(str(worker)) == worker
    assert worker.alive() is True
    assert WorkerId(worker.machine, worker.pid, "7").alive() is False  # its number was given again
    assert WorkerId("elsewhere", worker.pid, worker.started).alive() is None
    process.kill()
    deadline = time.monotonic() + 10
    while worker.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.alive() is False  # dead, though nobody has collected it yet
    process.communicate()
    assert WorkerId.parse("nonsense") is None


def test_a_line_that_was_never_ended_is_removed_from_the_journal(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    work(study, tmp_path / "out").step()
    journal = tmp_path / "out" / "storage.log"
    with journal.open("ab") as stream:
        stream.write(b'{"op_code": 4, "worker')  # power went
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    assert sum(cell.done for cell in worker.standing.cells()) == 12
    for text, kept in ((b"", b""), (b"abc", b""), (b"a\n" + b"b" * 9000, b"a\n"), (b"a\nb\n", b"a\nb\n")):
        journal.write_bytes(text)
        drop_unfinished_line(journal)
        assert journal.read_bytes() == kept


def test_another_study_in_the_same_storage_is_refused(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    me = WorkerId.of(os.getpid())
    first = load_study([study_file(tmp_path)])
    Standing(first, storage, me, Watch())
    Standing(load_study([study_file(tmp_path)], [("axes.r", "[2, 4, 32]")]), storage, me, Watch())  # it may grow
    other = load_study([study_file(tmp_path)], [("data.batch_size", "4")])
    with pytest.raises(UserError, match="the storage holds another study 'grid': its cell r=2 has other settings"):
        Standing(other, storage, me, Watch())


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("postgresql+psycopg://me:secret@127.0.0.1:1/none", r"me:\*\*\*@.* can not be reached: .*[Cc]onnection"),
        ("nonsense", "--storage nonsense can not be reached: "),
        ("postgresql+nodriver://a@b/c", "can not be reached|not installed"),
    ],
)
def test_a_storage_that_can_not_be_reached(tmp_path: Path, url: str, match: str) -> None:
    with pytest.raises(UserError, match=match) as raised:
        open_storage(url, tmp_path)
    assert "secret" not in str(raised.value)


# --------------------------------------------------------------------------------- workers as processes, and their ends


class FakeSupervisor(Supervisor):
    """Starts workers that do not train."""

    def command(self, number: int) -> list[str]:
        study, url = self.args
        return [sys.executable, fake_worker.__file__, study, str(self.folder), url, str(number)]


def carry_out_under_fire(tmp_path: Path, url: str, kills: int, monkeypatch: pytest.MonkeyPatch, request: Any) -> Work:
    """Run 12 runs with two workers, one of which is killed at a random moment, again and again."""
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
            if alive and begun > killed:  # at least one run begins between two deaths, so that the study goes on
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
    worker = carry_out_under_fire(tmp_path, url, 10 if kind == "journal" else 3, monkeypatch, request)
    complete = [t for t in worker.standing.final.attempts() if t.state == TrialState.COMPLETE]
    assert len(complete) == 12
    assert len({t.user_attrs["signature"] for t in complete}) == 12
    assert not [t for t in worker.standing.final.attempts() if t.state == TrialState.RUNNING]
    for run in worker.study.final_runs():
        record = worker.folders.finished(run)
        assert record is not None
        assert record["metrics"]["report/acc"] == fake_worker.score(run)
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 12
    ends = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("end")]
    assert len(ends) == len(set(ends)) == 12  # no run came to its end twice


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


def test_workers_that_can_not_start_end_the_study_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = study_file(tmp_path)
    study = load_study([file])
    supervisor = FakeSupervisor(study, tmp_path / "out", open_storage(None, tmp_path / "out"), 1, [str(file), ""])
    broken: Callable[[int], list[str]] = lambda number: [sys.executable, "-c", "import sys; sys.exit('no disk')"]  # noqa: E731
    monkeypatch.setattr(supervisor, "command", broken)
    monkeypatch.setattr(supervising, "REFRESH_SECONDS", 0.01)
    with pytest.raises(UserError, match="worker 0 stopped: no disk"):
        supervisor.run()


# ---------------------------------------------------------------------------------------------------------- for people


def test_the_table_and_the_lines(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    output = io.StringIO()
    with Display(worker.standing, tmp_path / "out", Console(file=output, width=200)) as display:
        worker.step()
        display.refresh()
        display.refresh()
        worker.step()
        display.refresh()
    lines = output.getvalue().splitlines()
    assert lines[0] == f"study grid: 4 cells, 12 runs and trials, 0 done; {tmp_path / 'out'}"
    assert lines[1].startswith("r=2: 1 of 3 done, 0.503 (1 seed)")
    assert lines[3].startswith("r=2: 2 of 3 done, 0.508 ± 0.064 (2 seeds)")  # t = 12.706, s = 0.01 / sqrt 2
    assert len(lines) == 5  # nothing is told twice
    shown = Console(width=120, record=True, file=io.StringIO())
    shown.print(table(worker.standing.cells(), "maximize"))
    text = shown.export_text()
    assert "2/3" in text
    assert "0.508 ± 0.064 (2 seeds) *" in text
    assert clock(59.6) == "1:00"


def test_failures_are_told_when_they_happen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL_SEED", "0")
    study = load_study([study_file(tmp_path)], [("seeds", "1"), ("axes.r", "[2, 4]"), ("retries", "0")])
    worker = work(study, tmp_path / "out")
    output = io.StringIO()
    with Display(worker.standing, tmp_path / "out", Console(file=output, width=60)) as display:
        worker.until_done(poll=0.01)
        display.refresh()
        display.refresh()
    lines = output.getvalue().splitlines()
    assert [line for line in lines if "UserError" in line] == [
        f"r={r},seed=0 failed: UserError: this seed always fails" for r in (2, 4)
    ]


def test_folders_of_other_runs_are_moved_aside(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    folders = Folders("grid", tmp_path, "best")
    run = next(study.final_runs())
    folder = folders.take(run)
    (folder / "precious").write_text("x")
    assert marked(folders.take(run)) == run.signature
    assert (folder / "precious").is_file()  # the same run goes on in it
    (folder / ".run").write_text("another run")
    folders.take(run)
    assert not (folder / "precious").exists()
    assert (tmp_path / "superseded" / f"{run.name}-1" / "precious").is_file()
