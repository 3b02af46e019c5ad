"""Trials that all cells share, and trials beyond the ends of ranges."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import qmc

from smoa_lightning.ablation.execution.work import Work
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.first_points import first_points, unit_points
from smoa_lightning.common.atomic_files import write_json
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import RECORD, TRIALS
from tests.ablation import fake_worker
from tests.ablation.small_study import GRID, SEARCH, study_file, work

LR = "model.optimizer.init_args.lr"
ONE_CELL = [("axes.r", "[2]"), ("baseline", "{r: 2}"), ("seeds", "1")]


def rates(worker: Work, cell: str) -> list[float]:
    return [attempts[-1].params[LR] for _, attempts in sorted(worker.status.searches[cell].trials().items())]


# ------------------------------------------------------------------------------------------------------------ points


@pytest.mark.parametrize(("number", "dimensions"), [(8, 1), (8, 4), (16, 3), (5, 2)])
def test_each_part_of_each_range_has_one_point(number: int, dimensions: int) -> None:
    parts = 2 ** math.ceil(math.log2(number))
    for column in unit_points(number, dimensions):
        places = [unit * parts for unit in column]
        assert all(place % 1 == 0.5 for place in places)  # the middle of a part
        assert len({int(place) for place in places}) == number


def test_points_are_those_of_sobol_s_sequence() -> None:
    ours = np.array(unit_points(16, 3)).T
    assert ours == pytest.approx((qmc.Sobol(3, scramble=False).random_base2(4) + 1 / 32) % 1)


def test_values_have_the_scale_and_the_kind_of_their_range(made: Any) -> None:
    parameters = {
        "lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "r": {"low": 4, "high": 64, "log": True},
        "dropout": {"low": 0.0, "high": 0.3, "step": 0.1},
        "alpha": {"choices": [8, 16]},
    }
    study = made(axes={"packing": [True]}, search={"parameters": parameters, "trials": 8})
    points = first_points(study.search, study.cells[0].parameters)
    of = {key.rpartition(".")[2]: sorted(point[key] for point in points) for key in points[0]}
    assert of["lr"] == pytest.approx([10 ** (-4 + 3 * (i + 0.5) / 8) for i in range(8)], rel=1e-3)
    assert of["r"] == [round(4 * 16 ** ((i + 0.5) / 8)) for i in range(8)]
    assert of["dropout"] == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert of["alpha"] == [8] * 4 + [16] * 4


def test_cells_with_more_parameters_share_the_values_of_the_others(made: Any) -> None:
    parameters = {
        "lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "alpha": {"low": 4, "high": 64, "log": True, "only": {"packing": True}},
    }
    study = made(axes={"packing": [True, False]}, search={"parameters": parameters, "trials": 8})
    both, one = (first_points(study.search, cell.parameters) for cell in study.cells)
    assert [len(point) for point in (*both, *one)] == [2] * 8 + [1] * 8
    assert [point[LR] for point in both] == [point[LR] for point in one]


def test_a_study_file_gives_the_first_values(made: Any) -> None:
    spec = {"low": 1e-4, "high": 1e-1, "log": True, "points": [1e-3, 1e-2, 3e-2]}
    study = made(axes={"packing": [True]}, search={"parameters": {"lr": spec}, "trials": 8})
    assert study.search.common == 3
    assert first_points(study.search, study.cells[0].parameters) == [{LR: rate} for rate in (1e-3, 1e-2, 3e-2)]


@pytest.mark.parametrize(
    ("sampler", "given", "common"),
    [
        ("tpe", None, 8),
        ({"name": "tpe", "n_startup_trials": 5}, None, 5),
        ({"name": "tpe", "n_startup_trials": 5}, 3, 3),
        ("random", None, 8),
        ("random", 0, 0),
        ("qmc", None, 0),
        ("brute_force", None, 0),
    ],
)
def test_the_number_of_shared_trials(sampler: Any, given: int | None, common: int, made: Any) -> None:
    search = {"parameters": {"r": {"low": 4, "high": 64, "step": 4}}, "trials": 16, "sampler": sampler}
    search |= {} if given is None else {"common": given}
    assert made(axes={"packing": [True]}, search=search).search.common == common


WRONG = [
    ({"common": -1}, {}, r"search\.common is -1, but must be a whole number from 0 to 10,000"),
    ({"common": 2, "sampler": "qmc"}, {}, r"search\.common is 2, but sampler qmc tries the same values in all cells"),
    ({}, {"points": []}, r"lr: points is \[\], but must be a list of values"),
    ({}, {"points": [1.0]}, r"lr: points has 1\.0, but each must be a number of the range, 0\.001 to 0\.1"),
    ({}, {"points": ["x"]}, r"lr: points has 'x', but each must be a number of the range"),
    ({}, {"points": [0.01, 0.01]}, r"lr: points has 0\.01 twice"),
    ({"extend": 3}, {}, r"search\.extend is 3, but must be true, or \{factor: 2, trials: 4\}"),
    ({"extend": {"factor": 1}}, {}, r"search\.extend\.factor is 1, but must be a number above 1"),
    ({"extend": {"trials": 0}}, {}, r"search\.extend\.trials is 0, but must be a whole number of at least 1"),
    ({"extend": True, "sampler": "gp"}, {}, "sampler gp needs the same ranges in all trials, so extend needs"),
    (
        {"extend": True, "sampler": "cmaes"},
        {},
        "sampler cmaes needs the same ranges in all trials, so extend needs",
    ),
    ({"extend": True}, {"log": False}, r"search\.extend multiplies values by a factor, so it needs a range with log"),
]


@pytest.mark.parametrize(("search", "parameter", "says"), WRONG, ids=str)
def test_wrong_settings_are_refused_with_their_line(search: Any, parameter: Any, says: str, made: Any) -> None:
    spec = {"low": 1e-3, "high": 1e-1, "log": True, **parameter}
    with pytest.raises(UserError, match=rf"study\.yaml, line \d+: {says}"):
        made(axes={"packing": [True]}, search={"parameters": {"lr": spec}, "trials": 2, **search})


def test_an_extension_beyond_the_values_of_a_setting_is_refused(made: Any) -> None:
    search = {"parameters": {"budget_tolerance": {"low": 0.1, "high": 0.5, "log": True}}, "trials": 2, "extend": True}
    with pytest.raises(UserError, match=r"search\.extend: model\.budget_tolerance is 8\.0, but must be .* below 1"):
        made(axes={"packing": [True]}, search=search)


# -------------------------------------------------------------------------------------------------------- in a study


def test_all_cells_try_the_same_values_first_and_their_own_later(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path, GRID + SEARCH)], [("search.common", "4"), ("axes.r", "[2, 4]"),
                                                                ("baseline", "{r: 2}"), ("seeds", "1")])  # fmt: skip
    worker = work(study, tmp_path / "out")
    worker.until_done(poll=0.01)
    first, second = (rates(worker, cell.name) for cell in study.cells)
    assert first[:4] == second[:4] == [point[LR] for point in first_points(study.search, study.cells[0].parameters)]
    assert first[4] != second[4]  # drawn by TPE from the scores of the cell
    assert len(first) == len(second) == 5


def test_shared_trials_survive_dead_workers_and_failures(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path, GRID + SEARCH)], ONE_CELL)
    other = work(study, tmp_path / "out")
    search = other.status.searches["r=2"]
    search._queue_point()  # as by a worker that was killed before it asked
    claimed = search.claim()
    assert claimed is not None
    search.ledger.end(claimed.attempt, "died", "killed")
    failed = itertools.count()

    def fit(run: Any, *args: Any, **kwargs: Any) -> None:
        if run.trial is not None and next(failed) == 2:
            raise ValueError("once")
        fake_worker.fit(run, *args, **kwargs)

    worker = work(study, tmp_path / "out", fit=fit)
    worker.until_done(poll=0.01)
    wanted = [point[LR] for point in first_points(study.search, study.cells[0].parameters)][:5]
    assert rates(worker, "r=2") == wanted


def test_two_workers_never_have_the_same_point(tmp_path: Path) -> None:
    study = load_study([study_file(tmp_path, GRID + SEARCH)], ONE_CELL)
    first, second = (work(study, tmp_path / "out").status.searches["r=2"] for _ in range(2))
    first._queue_point()
    first.study().enqueue_trial(first._points()[0], user_attrs={"point": True})  # both have queued the first point
    claims = [first.claim(), second.claim(), second.claim()]
    assert claims[1] is None
    values = [claim.parameters[LR] for claim in claims if claim is not None]
    assert values == [point[LR] for point in first._points()[:2]]


def test_a_study_that_began_with_other_first_trials_is_continued_as_it_began_or_refused(tmp_path: Path) -> None:
    file, folder = study_file(tmp_path, GRID + SEARCH), tmp_path / "out"
    old = load_study([file], [*ONE_CELL, ("search.common", "0")])
    from smoa_lightning.ablation.study.study_compatibility import check_folder, describe_study

    assert "common" not in describe_study(old)["search"]  # as in the folders of earlier versions
    folder.mkdir()
    write_json(folder / "study.json", describe_study(old))
    assert check_folder(folder, old) == []
    with pytest.raises(UserError, match=r"first 0 trials .* first 8 \(--search\.common=0 continues it as it began\)"):
        check_folder(folder, load_study([file], ONE_CELL))
    extended = load_study([file], [*ONE_CELL, ("search.common", "0"), ("search.extend", "true")])
    assert check_folder(folder, extended) == ['search.extend was null and is {"factor": 2.0, "trials": 4}']


# ----------------------------------------------------------------------------------------------- beyond the ranges


def peak(place: float) -> Any:
    """Return a worker's function whose score falls with the distance from the best rate, in factors."""

    def fit(run: Any, folder: Path, facts: Any, base: bool, callbacks: Any = ()) -> None:
        fake_worker.fit(run, folder, facts, base, callbacks)
        record = json.loads((folder / RECORD).read_text())
        score = 0.9 - 0.1 * abs(math.log(float(run.parameters[LR]) / place))
        write_json(
            folder / RECORD, record | {"metrics": {**record["metrics"], "report/acc": score, "selection/acc": score}}
        )

    return fit


@pytest.mark.parametrize(
    ("place", "beyond", "inside"),
    [
        (0.02, [], True),
        (0.3, [2, 4, 8], True),  # 0.7 is above the best rate, so 0.35 is inside of what was tried
        (1e-4, [1 / 2, 1 / 4, 1 / 8], False),  # 1e-4 is beyond three steps
    ],
)
def test_a_range_grows_until_the_best_value_is_inside(
    place: float, beyond: list[float], inside: bool, tmp_path: Path
) -> None:
    extend = ("search.extend", "{factor: 2, trials: 3}")
    study = load_study([study_file(tmp_path, GRID + SEARCH)], [*ONE_CELL, ("search.trials", "8"), extend])
    worker = work(study, tmp_path / "out", fit=peak(place))
    worker.until_done(poll=0.01)
    tried = rates(worker, "r=2")
    within, outside = tried[:8], tried[8:]
    end = max(within) if place > 0.02 else min(within)
    assert outside == pytest.approx([end * factor for factor in beyond], rel=1e-3)
    best = worker.status.searches["r=2"].best()
    assert best is not None
    assert (min(tried) < best.params[LR] < max(tried)) == inside
    assert worker.status.cells()[0].planned == 1 + 8 + len(beyond)
    record = json.loads((tmp_path / "out" / "runs" / "r=2,seed=0" / RECORD).read_text())
    assert record["ablation"]["parameters"] == best.params  # the final run has the best value, also beyond the range
    trials = json.loads((tmp_path / "out" / TRIALS).read_text())["searches"]["r=2"]["trials"]
    assert [bool(trial.get("beyond")) for trial in trials] == [False] * 8 + [True] * len(beyond)


def test_an_extension_is_tried_again_after_a_failure_and_before_more_trials(tmp_path: Path) -> None:
    file, count = study_file(tmp_path, GRID + SEARCH), itertools.count()
    fake = peak(0.3)

    def fit(run: Any, *args: Any, **kwargs: Any) -> None:
        if run.trial == 8 and next(count) == 0:
            raise ValueError("once")
        fake(run, *args, **kwargs)

    flags = [*ONE_CELL, ("search.extend", "{trials: 1}")]
    worker = work(load_study([file], [*flags, ("search.trials", "8")]), tmp_path / "out", fit=fit)
    worker.until_done(poll=0.01)
    assert [len(attempts) for attempts in worker.status.searches["r=2"].trials().values()] == [1] * 8 + [2]
    more = work(load_study([file], [*flags, ("search.trials", "10")]), tmp_path / "out", fit=fit)
    more.until_done(poll=0.01)
    assert len(rates(more, "r=2")) == 11  # 8 common, one beyond, and two of TPE within the range
    assert all(1e-3 <= rate <= 1e-1 for rate in rates(more, "r=2")[9:])
