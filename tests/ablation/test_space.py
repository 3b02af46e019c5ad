"""Cells and runs of a study: conditions, baselines, metrics, budgets."""

from __future__ import annotations

import json
import pickle
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest

from smoa_lightning.ablation.study.axes import combined
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.objective import DIRECTIONS, measured_metrics, tasks_of
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.adapters.size_settings import SIZE_SETTINGS
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.parameter_budget import SIZES
from smoa_lightning.data.tasks import TASKS, Classification, Regression
from smoa_lightning.evaluation.choice import ChoiceEvaluator
from smoa_lightning.evaluation.label_metrics import class_metrics, number_metrics
from smoa_lightning.evaluation.text import answer_metrics, likelihood_metrics, reply_metrics
from smoa_lightning.records.metric_table import ACCURACIES, prediction_field

from ..pinned import pinned_versions_only

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ADAPTER = "model.adapter.init_args"


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


def test_a_seed_offset_gives_a_cell_its_own_seeds(made: Any) -> None:
    study = made(axes={"replicate": [{"a": {}}, {"b": {"seed_offset": 1000}}]}, seeds=[0, 2])
    runs = list(study.final_runs())
    assert [run.seed for run in runs] == [0, 2, 0, 2]  # pairs of the same number are compared
    given = [word for run in runs for word in run.arguments if word.startswith("--seed_everything")]
    assert [word.partition("=")[2] for word in given] == ["0", "2", "1000", "1002"]
    assert len({run.signature for run in runs}) == 4


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
    # settings of the base's SMoA that HiRA also has are kept, as on the command line
    assert hira.settings["model"]["adapter"] == {"class_path": "peft.HiraConfig", "init_args": {"r": 32}}
    assert "packing" not in hira.settings["data"]


@pinned_versions_only
def test_strategies_of_other_packages_take_their_settings(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class OtherConfig(peft.PeftConfig):
        gamma: int = 0

    elsewhere = SimpleNamespace(OtherConfig=OtherConfig)
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)  # type: ignore[arg-type]
    axes = {"adapter": ["peft.LoraConfig", "elsewhere.OtherConfig"], "model.adapter.gamma": [1, 2]}
    with pytest.raises(
        UserError, match=r"cell adapter=LoraConfig,gamma=1: unknown key 'model\.adapter\.gamma' of peft"
    ):
        made(axes=axes)
    study = made(axes=axes, drop=[{"adapter": "LoraConfig"}])
    assert names(study) == ["adapter=OtherConfig,gamma=1", "adapter=OtherConfig,gamma=2"]
    assert study.cells[1].settings["model"]["adapter"]["init_args"] == {"gamma": 2}
    with pytest.raises(UserError, match=r"'model\.adapter\.gama'.*the nearest .*gamma"):
        made(axes={"adapter": ["elsewhere.OtherConfig"], "model.adapter.gama": [1]})


def test_runs_can_be_sent_to_other_processes(made: Any) -> None:
    run = next(made(axes={"r": [4]}, search=None).final_runs())
    assert pickle.loads(pickle.dumps(run)) == run
    assert len(pickle.dumps(run)) < 10_000


def test_zipped_axes_change_together(made: Any) -> None:
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
    ({f"{ADAPTER}.r": ">4"}, {(4, 1), (4, 2), (4, 8)}),  # also by its key
    ({"rank_split": "total", "r": 4}, {(8, 1), (8, 2), (8, 8)}),  # the default of a setting that is not set
    ({"rank_split": "per_subspace"}, {(r, k) for r in (4, 8) for k in (1, 2, 8)}),
    ({"data.task": "!=boolq", "r": 4}, {(8, 1), (8, 2), (8, 8)}),  # piqa, from the base
    ({"data.packing": False, "r": 4}, {(8, 1), (8, 2), (8, 8)}),
]


@pytest.mark.parametrize(("drop", "left"), DROPS, ids=lambda v: str(v)[:50])
def test_conditions(drop: Any, left: set[tuple[int, int]], made: Any) -> None:
    study = made(axes={"r": [4, 8], "num_subspaces": [1, 2, 8]}, drop=drop)
    assert {(cell.values["r"], cell.values["num_subspaces"]) for cell in study.cells} == left
    assert len(study.cells) + len(study.dropped) == 6


def test_conditions_without_effect_are_reported(made: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    drop = [{"r": 4}, {"num_subspaces": 16}, {"r": "<8", "alpha": 8}, {"num_subspaces": 8}]
    study = made(axes={"r": [4, 8], "num_subspaces": [1, 2, 8]}, drop=drop)
    assert len(study.cells) == 2
    lines = (tmp_path / "study.yaml").read_text().splitlines()
    assert len(caplog.messages) == 2
    for text, message in zip(("num_subspaces: 16", "r: <8"), caplog.messages, strict=True):
        found = re.search(r"line (\d+): this condition drops no cell that is not dropped already", message)
        assert found
        assert text in lines[int(found[1]) - 1].replace("'", "")


@pytest.mark.parametrize(
    ("drop", "left"),
    [
        ({"size": 8}, ["2", "true", "null"]),
        ({"size": "8"}, ["2", "true", "null"]),
        ({"size": "==8"}, ["2", "true", "null"]),
        ({"size": "!=8"}, ["8"]),
        ({"size": [8, True]}, ["2", "null"]),
        ({"size": None}, ["2", "8", "true"]),
        ({"lr": "2e-3"}, ["8", "true", "null"]),
        ({"packing": "false", "size": ["2", "8"]}, ["true", "null"]),
        ({"packing": "==false", "size": "!=2"}, ["2"]),
    ],
    ids=str,
)
def test_conditions_find_labels_and_values_that_yaml_reads_as_numbers(drop: Any, left: list[str], made: Any) -> None:
    """YAML reads the label 8 of a mapping as a number where it is a value, and 1e-3 in quotes as a text."""
    rates = {2: 2e-3, 8: 8e-3, True: 1e-3, None: 4e-3}
    study = made(axes={"size": [{label: {"lr": rate}} for label, rate in rates.items()]}, drop=drop, baseline=None)
    assert [cell.labels["size"] for cell in study.cells] == left


def test_a_condition_is_false_for_a_strategy_without_the_setting(made: Any) -> None:
    adapters = [str(EXPERIMENTS / f"adapters/{name}.yaml") for name in ("lora", "smoa_blocks")]
    both = ["lora", "smoa_blocks"]
    remaining = {"none": both, "!=none": ["lora"], "spectral_blocks": ["lora"], "!=spectral_blocks": both}
    for test, labels in remaining.items():
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
    with pytest.raises(
        UserError, match="matches no cell among those with the rows of task=boolq,r=4; the nearest cell is"
    ):
        made(axes={"task": ["piqa", "boolq"], "r": [4, 8]}, baseline={"task": "piqa", "r": 4})


def test_without_an_objective_each_task_has_its_own_metric(made: Any) -> None:
    study = made(axes={"task": ["piqa", "hellaswag"]})
    assert [cell.report_metric for cell in study.cells] == ["acc", "acc_norm"]
    assert (study.objective.metric, study.objective.direction) == (None, "maximize")
    with pytest.raises(UserError, match="have different directions"):
        made(axes={"task": ["piqa", "convai2"]})


def test_a_search_compares_by_metrics_of_the_selection_rows(made: Any) -> None:
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
    """The table of metrics, compared with the metrics that the evaluation returns."""
    evaluator = ChoiceEvaluator()
    item = {"row": 0, "label": 0, "log_likelihood": [-1.0, -2.0], "nll": 1.0, "tokens": 1}
    evaluator.records = [item | {prediction_field(name): 0 for name in ACCURACIES}]
    choice = plain(evaluator.compute())
    gold = plain(likelihood_metrics([1.0, 2.0], [2, 3]))
    answers = plain(answer_metrics(["a"], ["a"])) | gold
    texts = plain(reply_metrics(["a b"], ["a c"])) | gold | {"bert_score"}
    for task in TASKS.values():
        for protocol in task.protocols:
            found = set(measured_metrics([protocol], "report")) - {"general_perplexity", "general_nll"}
            if isinstance(protocol, Classification):
                scores = np.full((2, len(protocol.names)), -1.0)
                expected = plain(class_metrics(scores, np.array([0, 1])))
            elif isinstance(protocol, Regression):
                expected = plain(number_metrics(np.arange(3.0), np.arange(3.0)))
            else:
                given = getattr(protocol, "answer", None)
                expected = choice if protocol.name == "likelihood" else answers if given else texts
                expected = expected | ({"stored_bits"} if getattr(protocol, "code_bits", None) else set())
            assert found == expected, task.name
            assert protocol.metric in found
            assert protocol.selection_metric in measured_metrics([protocol], "selection")
    assert {name for name in DIRECTIONS if DIRECTIONS[name] == "minimize"} == {
        *("nll", "mse", "perplexity", "unparsed_rate", "general_perplexity", "general_nll", "kl")
    }


def test_tasks_of_a_mixture() -> None:
    data = {"task": "mixture", "mixture": {"boolq": 1, "piqa": 2}, "report_tasks": ["hellaswag"]}
    assert list(tasks_of({"data": data}, "selection")) == ["boolq", "piqa"]
    assert list(tasks_of({"data": data}, "report")) == ["hellaswag"]


# -------------------------------------------------------------------------------------------------------------- budget


def test_sizes_are_the_settings_that_a_budget_decides() -> None:
    fields = {setting.field for settings in SIZE_SETTINGS.values() for setting in settings}
    assert fields | {"displacement_rank", "sparsity"} == SIZES  # of two methods, if their `r` is not set


def test_a_budget_reaches_every_run(made: Any, tmp_path: Path) -> None:
    study = made(axes={"num_subspaces": [2, 4]}, budget="80k", seeds=1)
    assert all("--model.budget=80k" in run.arguments for run in study.final_runs())
    (tmp_path / "like.yaml").write_text((EXPERIMENTS / "adapters/lora.yaml").read_text())
    study = made(axes={"num_subspaces": [2, 4]}, budget={"like": "like.yaml"}, seeds=1)
    value = next(w for w in next(study.final_runs()).arguments if w.startswith("--model.budget="))
    assert json.loads(value.removeprefix("--model.budget=")) == {"like": str(tmp_path / "like.yaml")}
    elsewhere = made(axes={"num_subspaces": [2, 4]}, budget={"like": str(EXPERIMENTS / "adapters/lora.yaml")})
    assert study.cells[0].signature == elsewhere.cells[0].signature  # the strategy counts, not the place of its file
    (tmp_path / "like.yaml").write_text("model: {adapter: {class_path: peft.LoraConfig, init_args: {r: 3}}}\n")
    changed = made(axes={"num_subspaces": [2, 4]}, budget={"like": "like.yaml"})
    assert study.cells[0].signature != changed.cells[0].signature


@pytest.mark.parametrize(
    ("labels", "given", "label"),
    [
        ("{no: {data.packing: false}, on: {data.packing: true}}", "no", "no"),
        ("{no: {data.packing: false}, on: {data.packing: true}}", "'on'", "on"),
        ("{no: {data.packing: false}, on: {data.packing: true}}", "true", "on"),
        ("{off: {data.packing: false}, yes: {data.packing: true}}", "off", "off"),
        ("{1e-3: {lr: 0.001}, 2e-3: {lr: 0.002}}", "2e-3", "2e-3"),
        ("[{no: {data.packing: false}}, {yes: {data.packing: true}}]", "yes", "yes"),
        ("[no, on]", "off", "false"),
    ],
)
def test_labels_that_yaml_reads_as_other_values_match_themselves(
    labels: str, given: str, label: str, tmp_path: Path
) -> None:
    name = "packing" if labels == "[no, on]" else "m"
    text = (
        f"base: {EXPERIMENTS}/piqa.yaml\naxes: {{{name}: {labels}, r: [4, 8]}}\nbaseline: {{{name}: {given}, r: 4}}\n"
    )
    file = tmp_path / "study.yaml"
    file.write_text(text + f"drop: [{{{name}: {given}, r: 8}}]\n")
    study = load_study([file])
    assert study.dropped == (f"{name}={label},r=8",)
    assert set(study.baselines.values()) == {f"{name}={label},r=4"}


def test_a_value_that_two_labels_stand_for_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    axes = "axes: {m: {no: {data.packing: false}, off: {data.packing: true}}}\n"
    file.write_text(f"base: {EXPERIMENTS}/piqa.yaml\n{axes}baseline: {{m: no}}\n")
    with pytest.raises(UserError, match=r"line 3: baseline: axis 'm' has no value False"):
        load_study([file])
    file.write_text(f"base: {EXPERIMENTS}/piqa.yaml\n{axes}baseline: {{m: 'no'}}\n")
    assert set(load_study([file]).baselines.values()) == {"m=no"}
