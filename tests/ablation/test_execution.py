"""Every run of a study is done once, also if runs fail or workers die. No run of these tests trains."""

from __future__ import annotations

import datetime
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from smoa_lightning.ablation.execution import supervisor as supervising
from smoa_lightning.ablation.execution import work as working
from smoa_lightning.ablation.execution.durations import clock
from smoa_lightning.ablation.execution.folders import Folders, marked
from smoa_lightning.ablation.execution.ledger import run_state
from smoa_lightning.ablation.execution.live import Display, table
from smoa_lightning.ablation.execution.supervisor import Supervisor
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.claim import run_lock
from tests.ablation import fake_worker
from tests.ablation.small_study import GRID, study_file, work


def test_a_worker_does_every_run_once(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    status = worker.status
    runs = list(study.final_runs())
    assert len(runs) == 12
    assert [t.state for t in status.final.attempts()] == [TrialState.COMPLETE] * 12
    by_cell = {cell.cell: cell.values for cell in status.cells()}
    for run in runs:
        record = json.loads((tmp_path / "out" / "runs" / run.name / "record.json").read_text())
        assert record["ablation"]["signature"] == run.signature
        assert fake_worker.score(run) in by_cell[run.cell.name]
    worker.until_done(poll=0.01)
    assert len(status.final.attempts()) == 12  # nothing was run again


def test_runs_with_few_shot_prompts_of_their_own_score_the_base_model(tmp_path: Path) -> None:
    scored = []

    def fit(run: Any, folder: Path, facts: Any, base: bool, callbacks: Any = ()) -> None:
        scored.extend([run.name] * base)
        fake_worker.fit(run, folder, facts, base, callbacks)

    study = load_study([study_file(tmp_path)], [("data.num_fewshot", "2"), ("axes.r", "[2, 4]")])
    work(study, tmp_path / "out", fit=fit).until_done(poll=0.01)
    assert scored == ["r=2,seed=0", "r=2,seed=1", "r=2,seed=2"]


def test_runs_of_other_studies_are_not_run_again(tmp_path: Path) -> None:
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


def test_a_finished_run_is_not_run_again_if_its_worker_died_before_it_stored_the_result(tmp_path: Path) -> None:
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


def test_failed_runs_are_retried_and_reported_and_do_not_stop_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_SEED", "1")
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    failures = worker.status.failures()
    assert [f.run for f in failures] == [f"r={r},seed=1" for r in (2, 4, 8, 16)]
    assert {f.attempts for f in failures} == {2}  # retries: 1
    assert failures[0].reason == "this seed always fails."
    with pytest.raises(UserError) as error:
        Supervisor(study, tmp_path / "out", worker.status.storage, 1, []).run()
    assert str(error.value) == "r=2,seed=1 and 3 more failed: this seed always fails; fix it and add --retry_failed"
    assert sum(cell.done for cell in worker.status.cells()) == 8
    monkeypatch.delenv("FAIL_SEED")
    worker.until_done(poll=0.01)
    assert sum(cell.done for cell in worker.status.cells()) == 8  # no further attempts
    worker.status.final.reset_failures()
    worker.until_done(poll=0.01)
    assert sum(cell.done for cell in worker.status.cells()) == 12
    assert worker.status.failures() == []


def test_ctrl_c_releases_the_run(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    worker = work(study, tmp_path / "out", fit=stop)
    with pytest.raises(KeyboardInterrupt):
        worker.until_done(poll=0.01)
    (attempt,) = worker.status.final.attempts()
    assert attempt.user_attrs["ended"] == "stopped"
    assert run_state([attempt], retries=0) == "open"


def test_a_run_that_scores_nothing_fails(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path, GRID.replace("retries: 1", "retries: 0"))], [("seeds", "1")])

    def fit(run: Any, folder: Path, *args: Any, **kwargs: Any) -> None:
        fake_worker.fit(run, folder, *args, **kwargs)
        record = json.loads((folder / "record.json").read_text())
        record["metrics"]["report/acc"] = float("nan")
        (folder / "record.json").write_text(json.dumps(record))

    worker = work(study, tmp_path / "out", fit=fit)
    worker.until_done(poll=0.01)
    assert "has no report/acc" in worker.status.failures()[0].reason


# ---------------------------------------------------------------------------------------------------------- for people


def test_the_table_and_the_lines(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    output = io.StringIO()
    with Display(worker.status, tmp_path / "out", Console(file=output, width=200)) as display:
        worker.step()
        display.refresh()
        display.refresh()
        worker.step()
        display.refresh()
    lines = output.getvalue().splitlines()
    assert lines[0] == f"study grid: 4 cells, 12 runs and trials, 0 done; {tmp_path / 'out'}"
    assert lines[1].startswith("r=2: 1 of 3 done, 0.503 (1 seed)")
    assert lines[3].startswith("r=2: 2 of 3 done, 0.508 [0.444, 0.572] (2 seeds)")  # t = 12.706, s = 0.01 / sqrt 2
    assert len(lines) == 5  # each line is printed once
    plain = io.StringIO()
    with Display(worker.status, tmp_path / ("x" * 90 + "[q,v]"), Console(file=plain, width=80)):
        assert plain.getvalue().endswith(f"2 done; {tmp_path / ('x' * 90 + '[q,v]')}\n")  # whole, on one line
    shown = Console(width=120, record=True, file=io.StringIO())
    shown.print(table(worker.status.cells(), "maximize"))
    text = shown.export_text()
    assert "2/3" in text
    assert "0.508 [0.444, 0.572] (2 seeds) *" in text
    assert clock(59.6) == "1:00"


def test_failures_are_printed_when_they_happen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL_SEED", "0")
    study = load_study([study_file(tmp_path)], [("seeds", "1"), ("axes.r", "[2, 4]"), ("retries", "0")])
    worker = work(study, tmp_path / "out")
    output = io.StringIO()
    with Display(worker.status, tmp_path / "out", Console(file=output, width=60)) as display:
        worker.until_done(poll=0.01)
        display.refresh()
        display.refresh()
    lines = output.getvalue().splitlines()
    assert [line for line in lines if " failed: " in line] == [
        f"r={r},seed=0 failed: this seed always fails." for r in (2, 4)
    ]


def test_folders_of_other_runs_are_moved_away(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path)])
    folders = Folders("grid", tmp_path, "best")
    run = next(study.final_runs())
    folder = folders.take(run)
    (folder / "precious").write_text("x")
    assert marked(folders.take(run)) == run.signature
    assert (folder / "precious").is_file()  # the same run continues in its folder
    (folder / ".run").write_text("another run")
    folders.take(run)
    assert not (folder / "precious").exists()
    assert (tmp_path / "superseded" / f"{run.name}-1" / "precious").is_file()


# -------------------------------------------------------------------------------------- errors found in review and use


def test_all_points_of_a_grid_are_tried_even_if_a_worker_died_before_its_values_were_known(tmp_path: Path) -> None:
    search = "search:\n  parameters: {lr: {choices: [0.01, 0.02, 0.04]}}\n  objective: acc\n  sampler: grid\n"
    study = load_study([study_file(tmp_path, GRID + search)], [("axes.r", "[2]"), ("baseline", "{r: 2}")])
    worker = work(study, tmp_path / "out")
    lost = worker.status.searches["r=2"].study().ask()  # as by a worker that is killed immediately
    worker.status.searches["r=2"].ledger.end(lost._trial_id, "died", "killed")
    worker.until_done(poll=0.01)
    trials = json.loads((tmp_path / "out" / "trials.json").read_text())["searches"]["r=2"]["trials"]
    rates = [t["parameters"]["model.optimizer.init_args.lr"] for t in trials if t["state"] == "COMPLETE"]
    assert sorted(rates) == [0.01, 0.02, 0.04]


def test_a_finished_run_without_its_folder_is_open_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    runs = [run.name for run in study.final_runs()]
    (tmp_path / "out" / "runs" / runs[3] / "record.json").write_text("{")  # damaged, as by a power cut
    shutil.rmtree(tmp_path / "out" / "runs" / runs[5])
    supervisor = Supervisor(study, tmp_path / "out", worker.status.storage, 1, [])
    assert supervisor.reopen_lost() == []  # another machine may have just written the folder
    monkeypatch.setattr(supervising, "SETTLED", datetime.timedelta(0))
    assert supervisor.reopen_lost() == [runs[3], runs[5]]
    assert [run.name for run in supervisor.status.open_runs()] == [runs[3], runs[5]]
    work(study, tmp_path / "out").until_done(poll=0.01)
    assert len(list((tmp_path / "out" / "runs").glob("*/record.json"))) == 12
    assert supervisor.reopen_lost() == []
    assert len(worker.status.final.attempts()) == 14


def test_a_folder_that_is_being_copied_is_ignored(tmp_path: Path) -> None:
    first = load_study([study_file(tmp_path)], [("name", "first")])
    work(first, tmp_path / "first").until_done(poll=0.01)
    (tmp_path / "first" / "study.json").write_text("{}")
    run = next(first.final_runs())
    shutil.copytree(tmp_path / "first" / "runs" / run.name, tmp_path / "first" / "runs" / f".{run.name}.7-ab.tmp")
    shutil.rmtree(tmp_path / "first" / "runs" / run.name)
    second = load_study([study_file(tmp_path)], [("name", "second")])
    worker = work(second, tmp_path / "second")
    assert worker.folders.adopt(run, worker.worker, base=False) is None


@pytest.mark.parametrize("lacks", ["adapter", "base"])
def test_a_run_is_copied_only_with_everything_that_the_study_needs(lacks: str, tmp_path: Path) -> None:
    first, second = (load_study([study_file(tmp_path)], [("name", name)]) for name in ("first", "second"))
    work(first, tmp_path / "first").until_done(poll=0.01)
    (tmp_path / "first" / "study.json").write_text("{}")
    run = next(first.final_runs())
    worker = work(second, tmp_path / "second")
    if lacks == "adapter":
        shutil.rmtree(tmp_path / "first" / "runs" / run.name / "adapter")
    else:
        file = tmp_path / "first" / "runs" / run.name / "record.json"
        record = json.loads(file.read_text())
        file.write_text(json.dumps(record | {"metrics": {"report/acc": 0.5}}))
    assert worker.folders.adopt(run, worker.worker, base=True) is None
    assert (worker.folders.adopt(run, worker.worker, base=False) is None) == (lacks == "adapter")


def test_a_run_that_is_still_locked_by_a_killed_worker_is_not_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "POLL_SECONDS", 0.01)
    study = load_study([study_file(tmp_path)], [("axes.r", "[2]"), ("baseline", "{r: 2}"), ("seeds", "1")])
    worker = work(study, tmp_path / "out")
    run = next(study.final_runs())
    with run_lock(worker.folders.take(run)):
        assert worker.step()
    worker.until_done(poll=0.01)
    assert [t.user_attrs.get("ended") for t in worker.status.final.attempts()] == ["stopped", None]
    assert worker.status.failures() == []
