"""``ablate --plan``: its numbers compared with peft and the trainer, bad cells, and finished runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from smoa_lightning.ablation.execution.durations import remaining_seconds
from smoa_lightning.ablation.planning import estimate, finished_runs
from smoa_lightning.ablation.planning.build_cell import build, work_of
from smoa_lightning.ablation.planning.cell_cost import run_seconds
from smoa_lightning.ablation.planning.plan import plan
from smoa_lightning.ablation.planning.plan_table import render
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.cli import FineTuneCLI
from tests.ablation.finished import finish, measured

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]  # default targets of a strategy


# --------------------------------------------------------------------------------------------------- counts and timing


def test_parameters_are_those_of_peft_and_the_parts_make_the_sum(
    make: Callable[..., Study], tiny_backbone: Path, tmp_path: Path
) -> None:
    """PiSSA starts from a decomposition of W and changes W, so its cell follows those that read W too."""
    files = [f"{EXPERIMENTS}/adapters/{name}.yaml" for name in ("lora", "pissa")]
    study = make({"method": files, "r": [2, 4]}, drop=[{"method": "pissa", "r": 4}])
    costs = measured(study, tmp_path / "study", workers=2)
    assert ["pissa" in cost.cell for cost in costs] == [False, False, True]
    for cost, r in zip(costs, (2, 4, 2), strict=True):
        peft_model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(tiny_backbone),
            LoraConfig(r=r, target_modules=TARGETS, task_type="CAUSAL_LM"),
        )
        trainable, total = peft_model.get_nb_trainable_parameters()
        assert (cost.parameters, cost.total) == (trainable, total - trainable)
        assert cost.timing is not None
        assert cost.timing.steps == 3
        assert min(cost.timing.start, cost.timing.step, cost.timing.selection_pass, cost.timing.report_pass) > 0
        work, timing = cost.work, cost.timing
        assert (work.steps, work.selection_passes, work.selection_rows, work.report_rows) == (8, 1, 10, 24)
        assert cost.final_seconds == pytest.approx(
            timing.start + 8 * timing.step + timing.selection_pass + timing.report_pass
        )
        assert cost.accuracy is not None
        assert 0 <= cost.accuracy <= 1
    assert costs[0].base_seconds > 0  # without a baseline the first cell scores the base model
    assert [cost.base_seconds for cost in costs[1:]] == [0, 0]
    assert not (tmp_path / "study").exists()
    text = render(plan(study), costs, width=200)
    seconds = sum(cost.seconds_left for cost in costs) / 2
    assert f"{round(seconds) // 60}:{round(seconds) % 60:02} with 2 workers" in text
    assert f"{costs[0].parameters:,}" in text


class Counting(Callback):
    """Counts what Lightning does: passes over the selection rows, expected steps, and steps."""

    def __init__(self) -> None:
        self.passes, self.expected, self.steps = 0, 0, 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.expected = trainer.estimated_stepping_batches

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.passes += 1

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.steps = trainer.global_step


@pytest.mark.parametrize(
    "settings",
    [
        {"trainer.max_epochs": 3, "trainer.accumulate_grad_batches": 3, "trainer.check_val_every_n_epoch": 2},
        {"trainer.max_epochs": 4, "trainer.max_steps": 11, "trainer.val_check_interval": 0.5},
        {"trainer.max_epochs": -1, "trainer.max_steps": 9, "trainer.check_val_every_n_epoch": None,
         "trainer.val_check_interval": 4, "trainer.accumulate_grad_batches": 2},
        {"trainer.max_epochs": 2, "trainer.limit_train_batches": 0.5, "trainer.limit_val_batches": 1},
    ],
    ids=["accumulated", "max_steps", "across_epochs", "limits"],
)  # fmt: skip
def test_steps_and_selections_are_those_of_a_real_run(
    make: Callable[..., Study], tmp_path: Path, settings: dict[str, Any]
) -> None:
    study = make({"r": [2]}, {**settings, "rank_monitor.max_layers": 0, "trainer.log_every_n_steps": 1})
    run = study.final_run(study.cells[0], 0)
    counting = Counting()
    quiet = ["--trainer.enable_progress_bar=false", f"--run.folder={tmp_path}/run", "--run.score_base=false"]
    FineTuneCLI(["fit", *run.arguments, *quiet, "--run.score_report=false"], callbacks=[counting])
    work = work_of(build(study.cells[0], study, tmp_path))
    assert work.steps == counting.expected == counting.steps
    assert work.selection_passes == counting.passes > 0
    assert work.selection_rows == min(10, 16 * settings.get("trainer.limit_val_batches", 1))


def test_a_frozen_cell_costs_only_its_scoring(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make({"method": [f"{EXPERIMENTS}/adapters/frozen.yaml", f"{EXPERIMENTS}/adapters/full.yaml"]})
    frozen, whole = measured(study, tmp_path / "study")
    assert frozen.parameters == 0
    assert whole.parameters == whole.total
    assert frozen.timing is not None
    assert frozen.work.steps == frozen.work.selection_passes == 0
    assert frozen.final_seconds == pytest.approx(frozen.timing.start + frozen.timing.report_pass)
    assert frozen.timing.report_pass > 0


# ----------------------------------------------------------------------------------------------------------- bad cells


def test_bad_cells_are_named_together(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make({"num_subspaces": [2, 5, 7]}, {"partition": "spectral_blocks", "r": 4})
    with pytest.raises(UserError, match=r"^cell num_subspaces=5 cannot be run: .*; 1 other cell cannot be run ") as e:
        measured(study, tmp_path / "study")
    assert "num_subspaces=7" not in str(e.value)


def test_a_budget_out_of_reach_is_found_without_a_step(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make({"partition": ["none"]}, {"num_subspaces": 1, "model.budget": 7})
    with pytest.raises(UserError, match=r"^cell partition=none cannot be run: budget 7: not met within 1%"):
        measured(study, tmp_path / "study")


def test_validations_further_apart_than_an_epoch_are_refused(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make({"r": [2]}, {"trainer.val_check_interval": 50})
    with pytest.raises(UserError, match="val_check_interval is 50, but an epoch has only 8 batches"):
        measured(study, tmp_path / "study")


# ------------------------------------------------------------------------------------------------------- finished runs


def test_finished_runs_are_used_and_not_run_again(
    make: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = make({"r": [2, 4]}, seeds=[0, 1, 2]), tmp_path / "studies" / "tiny"
    two, four = study.cells
    for seed, seconds in ((0, 10.0), (1, 30.0)):
        finish(folder, study.final_run(two, seed), seconds, score=0.75)
    finish(folder, study.final_run(two, 2), 500.0, status="failed")
    other = folder.parent / "other"  # another study in this root has done the same run
    finish(other, study.final_run(four, 1), 40.0)
    (other / "study.json").write_text("{}")
    monkeypatch.setattr(estimate, "time_cell", lambda built: pytest.fail("there was nothing to time"))
    costs = measured(study, folder)
    assert [(c.final_seconds, c.final_done, c.final_left, c.seconds_left) for c in costs] == [
        (20.0, 2, 1, 20.0),
        (40.0, 1, 2, 80.0),
    ]
    assert costs[0].source == "median of 2 runs"
    assert (costs[0].accuracy, costs[0].accuracy_source) == (0.75, "mean of 2 finished runs")
    text = render(plan(study), costs, width=200)
    assert "1:40 with 1 worker;" in text
    sizes = [cost.parameters for cost in costs]
    assert f"sizes differ: {sizes[0]:,} parameters in r=2, {sizes[1]:,} in r=4." in text
    assert "sizes differ" not in render(plan(study), [costs[0], replace(costs[1], parameters=sizes[0])], width=200)
    assert "beyond the ends" not in text
    longer = replace(plan(study), beyond=2, search_seeds=(0, 1, 2))
    searched = [replace(cost, search_seconds=10.0) for cost in costs]  # 2 cells x 2 trials x 3 seeds
    assert "not counted: about 2:00 if all cells need all" in render(longer, searched, width=200)


def test_a_run_of_other_settings_does_not_count(make: Callable[..., Study], tmp_path: Path) -> None:
    old = make({"r": [2]}, {"data.batch_size": 4})
    finish(tmp_path / "study", old.final_run(old.cells[0], 0), 1.0)
    study = make({"r": [2]})
    assert finished_runs.read_finished(study, tmp_path / "study")["r=2"].final == {}
    assert finished_runs.read_finished(old, tmp_path / "study")["r=2"].final.keys() == {0}


def test_a_search_counts_its_trials_and_its_final_runs_after_them(make: Callable[..., Study], tmp_path: Path) -> None:
    search = {"parameters": {"lr": {"low": 1.0e-4, "high": 1.0e-2, "log": True}}, "trials": 3, "seeds": [100]}
    study, folder = make({"r": [2]}, search=search), tmp_path / "study"
    (cell,) = study.cells
    key = cell.parameters[0].key
    for trial in (0, 1):
        finish(folder, study.search_run(cell, trial, 100, {key: 1e-3 * (trial + 1)}), 6.0 + trial)
    finish(folder, study.final_run(cell, 0, {key: 1e-3}), 9.0)
    found = finished_runs.read_finished(study, folder)[cell.name]
    assert (found.search, found.search_seconds, found.final) == (2, [6.0, 7.0], {})  # the search may find better values
    (cost,) = measured(study, folder)
    assert (cost.search_left, cost.search_seconds, cost.final_left) == (1, 6.5, 2)
    assert cost.timing is not None
    assert cost.final_seconds == run_seconds(cost.timing, cost.work, report=True)
    trials = [{"number": 2, "state": "PRUNED"}]
    (folder / "trials.json").write_text(json.dumps({"format": 1, "searches": {cell.name: {"trials": trials}}}))
    found = finished_runs.read_finished(study, folder)[cell.name]
    assert (found.search, found.final.keys()) == (3, {0})


def test_a_trial_that_ends_early_with_its_second_seed_counts_once(make: Callable[..., Study], tmp_path: Path) -> None:
    search = {"parameters": {"lr": {"low": 1.0e-4, "high": 1.0e-2, "log": True}}, "trials": 4, "seeds": [100, 101]}
    study, folder = make({"r": [2]}, search=search), tmp_path / "study"
    (cell,) = study.cells
    key = cell.parameters[0].key
    for trial, seed in ((0, 100), (0, 101), (1, 100)):
        finish(folder, study.search_run(cell, trial, seed, {key: 1e-3 * (trial + 1)}), 6.0)
    trials = [{"number": 0, "state": "COMPLETE"}, {"number": 1, "state": "PRUNED"}]  # the second seed of 1 diverged
    (folder / "trials.json").write_text(json.dumps({"format": 1, "searches": {cell.name: {"trials": trials}}}))
    assert finished_runs.read_finished(study, folder)[cell.name].search == 4  # of 8


def test_a_teacher_that_fills_a_cache_counts_once(
    make: Callable[..., Study], tiny_backbone: Path, tmp_path: Path
) -> None:
    """The plan writes no cache; cells that share one count its pass once; a complete cache costs nothing."""
    teacher = {"teacher": str(tiny_backbone), "cache_folder": str(tmp_path / "cache"), "cache_top": 8}
    flags = {f"model.distillation.{name}": value for name, value in teacher.items()}
    flags |= {"trainer.max_steps": "2", "data.selection_rows": "0", "data.limit_report_rows": "8"}
    study = make({"r": [2, 4]}, flags)
    first, second = measured(study, tmp_path / "study")
    assert first.timing is not None
    assert first.timing.teacher == first.teacher_seconds > 0 == second.teacher_seconds
    runs = 2 * run_seconds(first.timing, first.work, report=True)
    assert first.seconds_left == pytest.approx(runs + first.base_seconds + first.teacher_seconds)
    assert "a teacher computes the rows that its cache lacks" in render(plan(study), [first, second])
    assert not (tmp_path / "cache").exists()
    study = make({"r": [2]}, flags)
    built = build(study.cells[0], study, tmp_path)
    built.trainer.fit(built.module, datamodule=built.data)
    assert [cost.teacher_seconds for cost in measured(study, tmp_path / "study")] == [0]


# ------------------------------------------------------------------------------------------------------ remaining time


def test_remaining_runs_take_the_medians() -> None:
    durations = {"a": [10.0, 20.0, 90.0], "b": []}
    assert remaining_seconds(durations, {"a": 2, "b": 1}, 1) == 2 * 20 + 20
    assert remaining_seconds({**durations, "c": [40.0]}, {"a": 0, "b": 2, "c": 1}, 3) == (2 * 30 + 40) / 3
    assert remaining_seconds({"a": []}, {"a": 3}, 2) is None
    assert remaining_seconds({"a": []}, {"a": 0}, 2) == 0
