"""Searches: samplers and pruners of Optuna, values of parameters, cells of a parameter, and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from smoa_lightning.ablation.planning.plan import plan
from smoa_lightning.ablation.study.optuna_objects import try_search
from smoa_lightning.ablation.study.search_space import PRUNERS, SAMPLERS
from smoa_lightning.common.errors import UserError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ADAPTER = "model.adapter.init_args"


def test_samplers_and_pruners_are_those_of_optuna() -> None:
    for table, module, base in (
        (SAMPLERS, optuna.samplers, optuna.samplers.BaseSampler),
        (PRUNERS, optuna.pruners, optuna.pruners.BasePruner),
    ):
        for class_name in table.values():
            assert issubclass(getattr(module, class_name), base)


def test_options_of_samplers_and_pruners_are_taken(made: Any) -> None:
    given = {"sampler": {"name": "tpe", "n_startup_trials": 3, "multivariate": True}, "pruner": {"name": "hyperband"}}
    study = made(
        axes={"packing": [True]}, search={"parameters": {"lr": {"low": 1e-4, "high": 1e-1}}, "trials": 2, **given}
    )
    sampler, pruner = study.search.sampler, study.search.pruner
    made_sampler = getattr(optuna.samplers, sampler.class_name)(**sampler.options)
    assert isinstance(made_sampler, optuna.samplers.TPESampler)
    assert isinstance(getattr(optuna.pruners, pruner.class_name)(**pruner.options), optuna.pruners.HyperbandPruner)
    assert (study.search.seeds, study.search.trials) == ((1000,), 2)


SPECS = [
    ({"low": 4, "high": 16, "step": 4}, "r", (4, 8, 12, 16)),
    ({"low": 4, "high": 7}, "r", (4, 5, 6, 7)),
    ({"low": 4, "high": 64, "log": True}, "r", None),
    ({"low": 0.0, "high": 0.3, "step": 0.1}, "dropout", (0.0, 0.1, 0.2, 0.3)),
    ({"low": 0, "high": 1}, "dropout", None),  # whole numbers as bounds of a setting that can take any number
    ({"choices": [8, 2]}, "r", (8, 2)),
]


@pytest.mark.parametrize(("spec", "name", "values"), SPECS, ids=str)
def test_values_of_a_parameter(spec: Any, name: str, values: Any, made: Any) -> None:
    study = made(axes={"packing": [True]}, search={"parameters": {name: spec}, "trials": 2})
    (parameter,) = study.search.parameters
    assert parameter.values == values
    if "choices" not in spec:  # the values are valid for Optuna's distribution
        kind = optuna.distributions.IntDistribution if parameter.integer else optuna.distributions.FloatDistribution
        step = {} if parameter.step is None else {"step": parameter.step}
        made_of = kind(parameter.low, parameter.high, log=parameter.log, **step)
        assert all(made_of._contains(value) for value in parameter.values or ())


def test_a_parameter_may_apply_to_some_cells_only(made: Any) -> None:
    axes = {"partition": [{"none": {"partition": "none", "num_subspaces": 1}}, "spectral_blocks"]}
    with_k = {"num_subspaces": {"choices": [2, 4], "only": {"partition": "!=none"}}}
    search = {"parameters": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}, **with_k}, "trials": 4, "seeds": 2}
    study = made(axes=axes, search=search, seeds=3)
    lr, k = "model.optimizer.init_args.lr", f"{ADAPTER}.num_subspaces"
    assert [[p.key for p in cell.parameters] for cell in study.cells] == [[lr], [lr, k]]
    planned = plan(study)
    assert [(row.final_runs, row.search_runs) for row in planned.rows] == [(3, 8), (3, 8)]
    assert (planned.final_runs, planned.search_runs, planned.runs) == (6, 16, 22)
    assert planned.search_seeds == (1000, 1001)


def test_runs_of_a_search(made: Any) -> None:
    lr = "model.optimizer.init_args.lr"
    study = made(axes={"r": [4]}, search={"parameters": {"lr": {"low": 1e-3, "high": 0.1}}, "trials": 2}, seeds=[7])
    (cell,) = study.cells
    run = study.search_run(cell, 1, 1000, {lr: 0.05})
    assert run.name == "r=4,trial=1,seed=1000"
    assert run.arguments == (
        *("--config", str(EXPERIMENTS / "piqa.yaml")),
        *(f"--{ADAPTER}.r=4", f"--{lr}=0.05", "--run.score_base=false", "--run.score_report=false"),
        "--seed_everything=1000",
    )
    final = study.final_run(cell, 7, {lr: 0.05})
    assert final.name == "r=4,seed=7"
    assert final.arguments[-1] == "--seed_everything=7"
    assert not any("score" in word for word in final.arguments)
    # the final run is reported, the search run is not; the trial number does not matter
    assert study.final_run(cell, 1000, {lr: 0.05}).signature != run.signature
    assert study.search_run(cell, 5, 1000, {lr: 0.05}).signature == run.signature
    assert study.search_run(cell, 1, 1000, {lr: 0.06}).signature != run.signature
    with pytest.raises(
        UserError, match=r"the search of cell r=4 needs values of model\.optimizer\.init_args\.lr, but got nothing"
    ):
        study.final_run(cell, 7)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "cmaes"])  # needs a further package
def test_every_sampler_with_a_seed_passes_its_first_try(name: str, made: Any) -> None:
    parameters = {"lr": {"low": 0.01, "high": 0.1, "step": 0.09}}
    search = {"parameters": parameters, "trials": 1, "sampler": {"name": name, "seed": 3}}
    try_search(made(axes={"packing": [True]}, search=search).search)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("sampler", {"name": "tpe", "n_startup_trials": "x"}),
        ("sampler", {"name": "tpe", "gamma": 3}),
        ("sampler", {"name": "nsgaii", "population_size": 1}),
        ("pruner", {"name": "percentile"}),
        ("pruner", {"name": "median", "n_startup_trials": -1}),
        ("pruner", {"name": "median", "n_warmup_steps": "x"}),
    ],
)
def test_options_that_optuna_refuses_name_the_line(kind: str, given: dict[str, Any], made: Any) -> None:
    search = {"parameters": {"lr": {"low": 0.01, "high": 0.1}}, "trials": 2, kind: given}
    study = made(axes={"packing": [True]}, search=search)
    with pytest.raises(UserError, match=rf"line \d+: {kind} {given['name']} cannot take its options: "):
        try_search(study.search)
