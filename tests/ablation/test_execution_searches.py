"""Searches of a study: trials, more seeds and trials, and workers that die or fail. No run of these tests trains."""

from __future__ import annotations

import collections
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoa_lightning.ablation.execution.status import StudyStatus
from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.execution.worker_id import Watch, WorkerId
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.study_compatibility import check_folder, describe_study
from smoa_lightning.common.checksums import write_sealed
from tests.ablation import fake_worker
from tests.ablation.small_study import GRID, SEARCH, study_file, work


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
        assert len(set(rates)) == 5  # all draws differ, although each comes from a new sampler
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
    search = many.status.searches["r=2"]
    assert len(search.trials()) == 12
    best = search.best()
    assert best is not None
    assert best.number > 0  # true of these draws
    record = json.loads((tmp_path / "out" / "runs" / "r=2,seed=0" / "record.json").read_text())
    assert record["ablation"]["parameters"] == best.params
    assert len(list((tmp_path / "out" / "superseded").iterdir())) == 1  # nothing is lost


def only_seeds(*allowed: int) -> Any:
    """Return a fit that refuses runs with other seeds."""

    def fit(run: Any, *rest: Any) -> None:
        assert run.seed in allowed, f"{run.name} was run again"
        fake_worker.fit(run, *rest)

    return fit


def test_more_and_fewer_seeds_keep_the_finished_runs(tmp_path: Path) -> None:
    file, out = study_file(tmp_path), tmp_path / "out"
    for seeds, new in (("2", (0, 1)), ("[1, 3]", (3,)), ("[0, 1, 3]", ())):
        study = load_study([file], [("seeds", seeds)])
        assert not [change for change in check_folder(out, study) if "different" in change]
        worker = work(study, out, fit=only_seeds(*new))
        write_sealed(out / "study.json", describe_study(study))
        worker.until_done(poll=0.01)
        assert not worker.status.failures()
        report = read_study(out)
        assert {run.seed for run in report.finished} == {*study.seeds}
        assert report.other_seeds == ((0,) if 0 not in study.seeds else ())
        assert report.base_models  # scored by the run with seed 0, also while the study does not have this seed
    assert len(list((out / "runs").iterdir())) == 12
    assert not (out / "superseded").exists()


def test_more_and_fewer_seeds_of_a_search_keep_its_trials(tmp_path: Path) -> None:
    """A trial gets a score over the new seeds; its values, number and finished runs stay."""
    flags = [("axes.r", "[2]"), ("baseline", "{r: 2}"), ("seeds", "1")]
    file, found = study_file(tmp_path, GRID + SEARCH), []
    for seeds, new in (("1", (0, 1000)), ("2", (0, 1001)), ("[1001, 1002]", (0, 1002)), ("1", (0,))):
        study = load_study([file], [*flags, ("search.seeds", seeds)])
        worker = work(study, tmp_path / "out", fit=only_seeds(*new))
        worker.until_done(poll=0.01)
        assert not worker.status.failures()
        trials = worker.status.searches["r=2"].trials()
        assert study.search is not None
        for number, attempts in trials.items():
            runs = [study.search_run(study.cells[0], number, s, attempts[-1].params) for s in study.search.seeds]
            assert attempts[-1].value == pytest.approx(np.mean([fake_worker.score(run) for run in runs]))
        found.append({number: attempts[-1].params for number, attempts in trials.items()})
    assert found[0] == found[1] == found[2] == found[3]
    assert len(list((tmp_path / "out" / "search").glob("*/record.json"))) == 15


def test_a_trial_whose_worker_died_keeps_its_values_and_its_number(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path, GRID + SEARCH)], [("axes.r", "[2]"), ("baseline", "{r: 2}")])
    dead = WorkerId(WorkerId.of(os.getpid()).machine, 2**22 + 1, "1")  # no such process
    storage = open_storage(None, tmp_path / "out")
    status = StudyStatus(study, storage, dead, Watch())
    claimed = status.searches["r=2"].claim()
    assert claimed is not None
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    attempts = worker.status.searches["r=2"].trials()
    assert len(attempts) == 5
    assert [t.user_attrs.get("ended") for t in attempts[claimed.number]] == ["died", None]
    assert attempts[claimed.number][1].params == claimed.parameters
    assert (tmp_path / "out" / "search" / f"r=2,trial={claimed.number},seed=1000").is_dir()


def test_every_cell_has_the_same_number_of_trials_if_some_fail(tmp_path: Path) -> None:
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
        attempts = worker.status.searches[cell.name].trials()
        assert len(attempts) == 5
        assert len(attempts[1]) == 2  # retries: 1
        assert count[f"{cell.name},trial=1,seed=1000"] == 2
    assert [f.reason for f in worker.status.failures()] == ["ValueError: no"] * 2


def test_a_trial_whose_score_is_infinite_is_pruned_and_its_seeds_are_not_tried_again(tmp_path: Path) -> None:
    """Training may end well with a perplexity that overflows: a result of these values, as a loss that is nan."""
    study = load_study([study_file(tmp_path, GRID + SEARCH)], [("axes.r", "[2]"), ("baseline", "{r: 2}")])

    def fit(run: Any, folder: Path, *rest: Any, **more: Any) -> None:
        fake_worker.fit(run, folder, *rest, **more)
        if run.stage == "search" and run.trial != 2:
            record = json.loads((folder / "record.json").read_text())
            record["metrics"]["selection/acc"] = float("inf")
            (folder / "record.json").write_text(json.dumps(record))

    worker = work(study, tmp_path / "out", fit)
    worker.until_done(poll=0.01)
    (search,) = json.loads((tmp_path / "out" / "trials.json").read_text())["searches"].values()
    states = [trial["state"] for trial in search["trials"]]
    assert states == ["PRUNED", "PRUNED", "COMPLETE", "PRUNED", "PRUNED"]
    assert search["trials"][0]["reason"] == "diverged: the run has no selection/acc: it is inf"
    assert search["best"] == 2
    assert worker.status.failures() == []
