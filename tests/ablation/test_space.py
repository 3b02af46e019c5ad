"""The space of runs: cells, conditions, baselines, budgets, searches, signatures, folders of studies."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml

from smoa_lightning.ablation.axes import combined
from smoa_lightning.ablation.budget import SIZES
from smoa_lightning.ablation.expand import load_study
from smoa_lightning.ablation.objective import DIRECTIONS, measured, tasks_of
from smoa_lightning.ablation.plan import plan
from smoa_lightning.ablation.same_study import DESCRIPTION, check_folder, describe_study
from smoa_lightning.ablation.search_space import PRUNERS, SAMPLERS
from smoa_lightning.ablation.space import Study
from smoa_lightning.adapters.knobs import KNOBS
from smoa_lightning.data.tasks import TASKS
from smoa_lightning.errors import UserError
from smoa_lightning.evaluation.text import answer_metrics, likelihood_metrics, reply_metrics
from smoa_lightning.metrics import LOWER_IS_BETTER, ChoiceAccuracy
from smoa_lightning.scoring import ChoiceScores

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ADAPTER = "model.adapter.init_args"


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Make a study of a few keys over piqa.yaml."""

    def make(**content: Any) -> Study:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump({"base": [str(EXPERIMENTS / "piqa.yaml")], **content}, sort_keys=False))
        return load_study([file])

    return make


def names(study: Study) -> list[str]:
    return [cell.name for cell in study.cells]


# --------------------------------------------------------------------------------------------------------------- cells


def test_cells_are_all_combinations_in_the_order_of_the_file(made: Any) -> None:
    study = made(axes={"model.adapter.init_args.r": [4, 8], "loss_on": ["all", "response"]})
    assert names(study) == ["r=4,loss_on=all", "r=4,loss_on=response", "r=8,loss_on=all", "r=8,loss_on=response"]
    cell = study.cells[1]
    assert cell.values == {"model.adapter.init_args.r": 4, "loss_on": "response"}
    assert cell.flags == {f"{ADAPTER}.r": 4, "data.loss_on": "response"}
    assert (cell.settings["model"]["adapter"]["init_args"]["r"], cell.settings["data"]["loss_on"]) == (4, "response")
    assert study.cell("r=8,loss_on=all") is study.cells[2]
    with pytest.raises(UserError, match="has no cell 'r=8,loss=all'; the nearest is r=8,loss_on=all"):
        study.cell("r=8,loss=all")


def test_values_of_all_forms(made: Any) -> None:
    lora = str(EXPERIMENTS / "adapters/lora.yaml")
    study = made(
        axes={
            "adapter": [
                lora,
                {"small": {"config": lora, "r": 2, "model": {"optimizer": {"lr": 0.5}}}},
                "peft.HiraConfig",
            ],
            "x": {"on": {"data": {"packing": True}}, "off": {}},
            "y": [{"target_modules": ["q_proj", "v_proj"], "warmup": 0.1}, {"decay": "constant"}],
        }
    )
    assert len(study.cells) == 12
    small = study.cell("adapter=small,x=on,y=target_modules:q_proj+v_proj+warmup:0.1")
    adapter = small.settings["model"]["adapter"]
    assert adapter["class_path"] == "peft.LoraConfig"
    assert adapter["init_args"] == {"r": 2, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}
    assert small.settings["model"]["optimizer"]["init_args"] == {"lr": 0.5, "weight_decay": 0.0}
    assert small.settings["data"]["packing"] is True
    hira = study.cell("adapter=HiraConfig,x=off,y=decay:constant")
    # what the base gave to SMoA and HiRA has too stays, as on the command line
    assert hira.settings["model"]["adapter"] == {"class_path": "peft.HiraConfig", "init_args": {"r": 32}}
    assert "packing" not in hira.settings["data"]


def test_strategies_of_other_packages_take_any_setting(made: Any) -> None:
    axes = {"adapter": ["peft.LoraConfig", "elsewhere.OtherConfig"], "model.adapter.gamma": [1, 2]}
    with pytest.raises(
        UserError, match=r"cell adapter=LoraConfig,gamma=1: unknown key 'model\.adapter\.gamma' of peft"
    ):
        made(axes=axes)
    study = made(axes=axes, drop=[{"adapter": "LoraConfig"}])
    assert names(study) == ["adapter=OtherConfig,gamma=1", "adapter=OtherConfig,gamma=2"]
    assert study.cells[1].settings["model"]["adapter"]["init_args"] == {"gamma": 2}


def test_runs_travel_between_processes(made: Any) -> None:
    run = next(made(axes={"r": [4]}, search=None).final_runs())
    assert pickle.loads(pickle.dumps(run)) == run
    assert len(pickle.dumps(run)) < 10_000


def test_zipped_axes_go_together(made: Any) -> None:
    axes = {"r": [4, 8], "packing": [True, False], "alpha": [2.0, 16.0]}
    study = made(axes=axes, zip=[["r", "alpha"]])
    assert names(study) == [
        "r=4,packing=true,alpha=2.0",
        "r=4,packing=false,alpha=2.0",
        "r=8,packing=true,alpha=16.0",
        "r=8,packing=false,alpha=16.0",
    ]
    assert len(list(combined(study.axes, [["r", "packing", "alpha"]]))) == 2


DROPS: list[tuple[Any, set[tuple[int, int]]]] = [
    ({"r": 4}, {(8, 1), (8, 2), (8, 8)}),
    ({"r": "==4"}, {(8, 1), (8, 2), (8, 8)}),
    ({"r": "!=4"}, {(4, 1), (4, 2), (4, 8)}),
    ({"num_subspaces": ">1"}, {(4, 1), (8, 1)}),
    ({"num_subspaces": ">=2"}, {(4, 1), (8, 1)}),
    ({"num_subspaces": "< 2"}, {(4, 2), (4, 8), (8, 2), (8, 8)}),
    ({"num_subspaces": "<=2"}, {(4, 8), (8, 8)}),
    ({"num_subspaces": [1, ">=8"]}, {(4, 2), (8, 2)}),
    ({"r": "<num_subspaces"}, {(4, 1), (4, 2), (8, 1), (8, 2), (8, 8)}),
    ({"r": "==num_subspaces"}, {(4, 1), (4, 2), (4, 8), (8, 1), (8, 2)}),
    ({"r": 4, "num_subspaces": [2, 8]}, {(4, 1), (8, 1), (8, 2), (8, 8)}),
    ([{"r": 4}, {"num_subspaces": 8}], {(8, 1), (8, 2)}),
    ({f"{ADAPTER}.r": ">4"}, {(4, 1), (4, 2), (4, 8)}),  # by its key as well
    ({"rank_split": "total", "r": 4}, {(8, 1), (8, 2), (8, 8)}),  # the default of a setting that nobody sets
    ({"rank_split": "per_subspace"}, {(r, k) for r in (4, 8) for k in (1, 2, 8)}),
    ({"data.task": "!=boolq", "r": 4}, {(8, 1), (8, 2), (8, 8)}),  # piqa, from the base
    ({"data.packing": False, "r": 4}, {(8, 1), (8, 2), (8, 8)}),
]


@pytest.mark.parametrize(("drop", "left"), DROPS, ids=lambda v: str(v)[:50])
def test_conditions(drop: Any, left: set[tuple[int, int]], made: Any) -> None:
    study = made(axes={"r": [4, 8], "num_subspaces": [1, 2, 8]}, drop=drop)
    assert {(cell.values["r"], cell.values["num_subspaces"]) for cell in study.cells} == left
    assert len(study.cells) + len(study.dropped) == 6


def test_a_strategy_without_the_setting_fulfils_no_condition(made: Any) -> None:
    adapters = [str(EXPERIMENTS / f"adapters/{name}.yaml") for name in ("lora", "smoa_blocks")]
    both = ["lora", "smoa_blocks"]
    kept = {"none": both, "!=none": ["lora"], "spectral_blocks": ["lora"], "!=spectral_blocks": both}
    for test, labels in kept.items():
        study = made(axes={"adapter": adapters}, drop=[{"partition": test}])
        assert [cell.labels["adapter"] for cell in study.cells] == labels


# ------------------------------------------------------------------------------------------------ baseline and metrics


def test_each_set_of_rows_has_its_baseline(made: Any) -> None:
    study = made(axes={"task": ["piqa", "boolq"], "r": [4, 8]}, baseline={"r": 4})
    assert study.baselines == {
        "task=piqa,r=4": "task=piqa,r=4",
        "task=piqa,r=8": "task=piqa,r=4",
        "task=boolq,r=4": "task=boolq,r=4",
        "task=boolq,r=8": "task=boolq,r=4",
    }
    with pytest.raises(UserError, match="is no cell among those with the rows of task=boolq,r=4; the nearest cell is"):
        made(axes={"task": ["piqa", "boolq"], "r": [4, 8]}, baseline={"task": "piqa", "r": 4})


def test_without_an_objective_each_task_has_its_own_metric(made: Any) -> None:
    study = made(axes={"task": ["piqa", "hellaswag"]})
    assert [cell.report_metric for cell in study.cells] == ["acc", "acc_norm"]
    assert (study.objective.metric, study.objective.direction) == (None, "maximize")
    with pytest.raises(UserError, match="do not agree on a direction"):
        made(axes={"task": ["piqa", "convai2"]})


def test_a_search_compares_by_what_the_selection_rows_have(made: Any) -> None:
    search = {"parameters": {"lr": {"choices": [1e-3, 1e-2]}}, "sampler": "grid"}
    study = made(axes={"task": ["gsm8k", "convai2"]}, objective="nll", search=search)
    assert [cell.search_metric for cell in study.cells] == ["nll", "nll"]
    with pytest.raises(UserError, match=r"acc is not measured on the selection rows of gsm8k, .*search\.objective"):
        made(axes={"task": ["gsm8k"]}, objective="acc", search=search)
    study = made(axes={"task": ["gsm8k"]}, objective="acc", search={**search, "objective": "nll"})
    assert (study.cells[0].report_metric, study.cells[0].search_metric) == ("acc", "nll")
    with pytest.raises(UserError, match=r"on selection rows, but data\.selection_rows is 0"):
        made(axes={"r": [4]}, search=search, overrides={"data.selection_rows": 0})


def plain(metrics: Any) -> set[str]:
    return {name for name in metrics if not name.endswith("_stderr")} - {"num_items", "reply_length"}


def test_metrics_are_those_that_are_measured() -> None:
    """What the tables here say, against what the evaluation itself returns."""
    metric = ChoiceAccuracy()
    metric.update(ChoiceScores(*[torch.zeros(2, 2)] * len(ChoiceScores._fields)), torch.tensor([0, 1]))
    choice = plain(metric.compute())
    gold = plain(likelihood_metrics([1.0, 2.0], [2, 3]))
    answers = plain(answer_metrics(["a"], ["a"])) | gold
    texts = plain(reply_metrics(["a b"], ["a c"])) | gold | {"bert_score"}
    for task in TASKS.values():
        for protocol in task.protocols:
            found = set(measured([protocol], "report")) - {"general_perplexity"}
            given = getattr(protocol, "answer", None)
            assert found == (choice if protocol.name == "likelihood" else answers if given else texts), task.name
            assert protocol.metric in found
            assert protocol.selection_metric in measured([protocol], "selection")
    assert {name for name in DIRECTIONS if DIRECTIONS[name] == "minimize"} == {*LOWER_IS_BETTER, "general_perplexity"}


def test_tasks_of_a_mixture() -> None:
    data = {"task": "mixture", "mixture": {"boolq": 1, "piqa": 2}, "report_tasks": ["hellaswag"]}
    assert list(tasks_of({"data": data}, "selection")) == ["boolq", "piqa"]
    assert list(tasks_of({"data": data}, "report")) == ["hellaswag"]


# -------------------------------------------------------------------------------------------------------------- budget


def test_sizes_are_those_that_a_budget_chooses() -> None:
    assert {knob.field for knobs in KNOBS.values() for knob in knobs} | {"displacement_rank"} == SIZES


def test_a_budget_reaches_every_run(made: Any, tmp_path: Path) -> None:
    study = made(axes={"num_subspaces": [2, 4]}, budget="80k", seeds=1)
    assert all("--model.budget=80k" in run.arguments for run in study.final_runs())
    (tmp_path / "like.yaml").write_text((EXPERIMENTS / "adapters/lora.yaml").read_text())
    study = made(axes={"num_subspaces": [2, 4]}, budget={"like": "like.yaml"}, seeds=1)
    value = next(w for w in next(study.final_runs()).arguments if w.startswith("--model.budget="))
    assert json.loads(value.removeprefix("--model.budget=")) == {"like": str(tmp_path / "like.yaml")}
    elsewhere = made(axes={"num_subspaces": [2, 4]}, budget={"like": str(EXPERIMENTS / "adapters/lora.yaml")})
    assert study.cells[0].signature == elsewhere.cells[0].signature  # the strategy counts, not where its file lies
    (tmp_path / "like.yaml").write_text("model: {adapter: {class_path: peft.LoraConfig, init_args: {r: 3}}}\n")
    changed = made(axes={"num_subspaces": [2, 4]}, budget={"like": "like.yaml"})
    assert study.cells[0].signature != changed.cells[0].signature


# -------------------------------------------------------------------------------------------------------------- search


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
    ({"low": 0, "high": 1}, "dropout", None),  # whole bounds of a setting that takes any number
    ({"choices": [8, 2]}, "r", (8, 2)),
]


@pytest.mark.parametrize(("spec", "name", "values"), SPECS, ids=str)
def test_values_of_a_parameter(spec: Any, name: str, values: Any, made: Any) -> None:
    study = made(axes={"packing": [True]}, search={"parameters": {name: spec}, "trials": 2})
    (parameter,) = study.search.parameters
    assert parameter.values == values
    if "choices" not in spec:  # Optuna makes the same of it
        kind = optuna.distributions.IntDistribution if parameter.integer else optuna.distributions.FloatDistribution
        step = {} if parameter.step is None else {"step": parameter.step}
        made_of = kind(parameter.low, parameter.high, log=parameter.log, **step)
        assert all(made_of._contains(value) for value in parameter.values or ())


def test_a_parameter_may_be_for_some_cells_only(made: Any) -> None:
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
    # one run is reported and one is not; what a trial is called does not matter
    assert study.final_run(cell, 1000, {lr: 0.05}).signature != run.signature
    assert study.search_run(cell, 5, 1000, {lr: 0.05}).signature == run.signature
    assert study.search_run(cell, 1, 1000, {lr: 0.06}).signature != run.signature
    with pytest.raises(
        UserError, match=r"cell r=4 is searched over model\.optimizer\.init_args\.lr, but was given nothing"
    ):
        study.final_run(cell, 7)


# ------------------------------------------------------------------------------------------------ signatures, folders


def test_one_run_in_two_studies_has_one_signature(made: Any) -> None:
    first = made(axes={"r": [4, 8]}, overrides={"lr": 0.5}, seeds=[1])
    second = made(name="other", axes={"method": {"x": {"lr": 0.5, "r": 8}}}, seeds=[1, 2], keep="none")
    assert second.cells[0].signature == first.cells[1].signature
    assert next(second.final_runs()).signature == list(first.final_runs())[1].signature
    assert len({run.signature for run in [*first.final_runs(), *second.final_runs()]}) == 3


def test_the_content_of_the_base_decides(tmp_path: Path) -> None:
    study, base = tmp_path / "study.yaml", tmp_path / "base.yaml"
    study.write_text("base: base.yaml\naxes: {batch_size: [4]}\n")
    found = []
    for text in ("data: {task: piqa}", "# a comment\ndata.task: piqa\nrun: {root: x}\n", "data: {task: boolq}"):
        base.write_text(text)
        found.append(load_study([study]).cells[0].signature)
    assert found[0] == found[1] != found[2]


GRID: dict[str, Any] = {"axes": {"r": [4, 8]}, "seeds": 2, "baseline": {"r": 4}}
SEARCH = {"parameters": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}}, "trials": 3}
MAY_CHANGE: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"axes": {"r": [8, 4]}}, []),
    ({"seeds": 3}, ["more seeds: 2"]),
    ({"axes": {"r": [4, 8, 16]}}, ["1 more cells, r=16 the first"]),
    ({"baseline": {"r": 8}}, ['baselines was ["r=4"] and is ["r=8"]']),
    ({"keep": "none", "retries": 3}, ["retries was 1 and is 3", 'keep was "best" and is "none"']),
]
MAY_NOT: list[tuple[dict[str, Any], str]] = [
    ({"name": "other"}, "it is 'study', this is 'other'"),
    ({"seeds": 1}, "its seed 1 is not in this one"),
    ({"axes": {"r": [4]}}, "its cell r=8 is not in this one"),
    ({"overrides": {"lr": 0.5}}, "lr of cell r=4 was 0.02 and is 0.5, and 1 more differences; name another --folder"),
    ({"overrides": {"data.packing": True}}, "data.packing of cell r=4 was not set and is true"),
    ({"search": SEARCH}, "it has no search and this one has one"),
]


@pytest.mark.parametrize(("change", "told"), MAY_CHANGE, ids=str)
def test_a_study_goes_on_in_its_folder(change: dict[str, Any], told: list[str], made: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert check_folder(folder, made(**GRID)) == []
    folder.mkdir()
    (folder / DESCRIPTION).write_text(json.dumps(describe_study(made(**GRID))))
    assert check_folder(folder, made(**GRID | change)) == told


@pytest.mark.parametrize(("change", "words"), MAY_NOT, ids=lambda v: str(v)[:60])
def test_a_folder_of_another_study_is_refused(change: dict[str, Any], words: str, made: Any, tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION).write_text(json.dumps(describe_study(made(**GRID))))
    with pytest.raises(UserError) as refused:
        check_folder(tmp_path, made(**GRID | change))
    assert f"the folder {tmp_path} holds another study: " in str(refused.value)
    assert words in str(refused.value)


def test_a_search_may_get_more_trials_and_nothing_else(made: Any, tmp_path: Path) -> None:
    content = GRID | {"search": SEARCH}
    (tmp_path / DESCRIPTION).write_text(json.dumps(describe_study(made(**content))))
    assert check_folder(tmp_path, made(**GRID | {"search": SEARCH | {"trials": 5}})) == ["search.trials was 3 and is 5"]
    rewritten = {"parameters": {"model.optimizer.lr": {"log": True, "high": 0.1, "low": 0.001}}, "trials": 3}
    assert check_folder(tmp_path, made(**GRID | {"search": rewritten | {"sampler": {"name": "tpe"}}})) == []
    for change in ({"trials": 2}, {"sampler": "random"}, {"seeds": 2}, {"pruner": "median"}, {"objective": "nll"}):
        with pytest.raises(UserError, match=rf"holds another study: search\.{next(iter(change))} was"):
            check_folder(tmp_path, made(**GRID | {"search": SEARCH | change}))


def test_folders_that_hold_no_study(made: Any, tmp_path: Path) -> None:
    study = made(**GRID)  # writes study.yaml there
    with pytest.raises(UserError, match="is not empty and holds no study"):
        check_folder(tmp_path, study)
    (tmp_path / DESCRIPTION).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        check_folder(tmp_path, study)
    (tmp_path / DESCRIPTION).write_text('{"format": 0}')
    with pytest.raises(UserError, match="written by another version"):
        check_folder(tmp_path, study)


def test_a_plan_tells_cells_and_what_they_differ_in(made: Any) -> None:
    planned = plan(made(**GRID, budget=None, drop=[{"r": 16}]))
    assert [(row.cell, row.settings, row.baseline, row.metric) for row in planned.rows] == [
        ("r=4", {f"{ADAPTER}.r": 4}, "r=4", "acc"),
        ("r=8", {f"{ADAPTER}.r": 8}, "r=4", "acc"),
    ]
    assert planned.shared["data.task"] == "piqa"
    assert (planned.runs, planned.seeds, planned.trials, planned.direction) == (4, (0, 1), 0, "maximize")
