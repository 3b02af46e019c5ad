"""`model.budget` on the command line: resolved before anything is named, and the run is what it resolved to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.__main__ import main

SIDES = 640  # of all adapted layers of the tiny backbone: a LoRA of rank r has SIDES r parameters
SHORT = ["--trainer.max_steps", "2", "--trainer.limit_test_batches", "1", "--run.score_base", "false"]


def records(tmp_path: Path) -> dict[Path, dict[str, Any]]:
    return {file.parent: json.loads(file.read_text()) for file in sorted((tmp_path / "runs").glob("*/*/record.json"))}


def test_the_run_is_what_the_budget_resolved_to(
    tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *tiny_arguments, *SHORT, "--model.budget", str(3 * SIDES)]) == 0
    line = f"budget {3 * SIDES:,}: r 6 (was 4), {3 * SIDES:,} trainable parameters (+0.0%)"
    assert line in capsys.readouterr().out
    assert main(["fit", *tiny_arguments, *SHORT, "--model.adapter.r", "6"]) == 0
    (folder, budgeted), (_, explicit) = records(tmp_path).items()
    assert folder.parent.name.startswith("piqa-smoa_spectral_blocks-r6-K2-seed0")
    assert budgeted["budget"] == {
        "asked": str(3 * SIDES),
        "target": 3 * SIDES,
        "parameters": 3 * SIDES,
        "relative_error": 0.0,
        "within": True,
        "changes": {"r": 6},
    }
    assert budgeted["metrics"]["parameters/trainable"] == 3 * SIDES
    limit = ["--trainer.limit_test_batches", "1", "--trainer.accelerator", "cpu"]
    assert budgeted["signature"] == explicit["signature"]
    assert budgeted["config"]["model"] == explicit["config"]["model"]
    assert "budget" not in explicit
    assert main(["test", "--ckpt_path", str(folder / "checkpoints" / "best.ckpt"), *limit]) == 0  # nothing is searched
    assert "budget" not in capsys.readouterr().out


def test_an_unmet_budget_is_printed_and_recorded(
    tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *tiny_arguments, *SHORT, "--model.budget", "400"]) == 0
    assert "budget 400: not met within 1%; nearest is r 2 (was 4), 640 trainable parameters (+60.0%)" in (
        capsys.readouterr().out
    )
    (record,) = records(tmp_path).values()
    assert (record["budget"]["within"], record["budget"]["relative_error"]) == (False, pytest.approx(0.6))


@pytest.mark.parametrize("budget", ["319", "100M"])
def test_a_budget_that_is_missed_by_more_than_half_is_refused(
    budget: str, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *tiny_arguments, *SHORT, "--model.budget", budget]) == 2
    assert "this is not near the budget: the nearest budget is " in capsys.readouterr().err


def test_params_shows_the_budget_and_takes_it_from_another_strategy(
    tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "lora.yaml").write_text("model: {adapter: {class_path: peft.LoraConfig, init_args: {r: 5}}}")
    (folder / "cell.yaml").write_text("model: {budget: {like: lora.yaml}}")
    monkeypatch.chdir(tmp_path)  # the path is relative to the file that names it
    assert main(["params", *tiny_arguments, "--config", "study/cell.yaml", "--no_memory"]) == 0
    shown = capsys.readouterr().out
    assert f"budget {5 * SIDES:,}: r 10 (was 4), {5 * SIDES:,} trainable parameters (+0.0%)" in shown
    assert f"trainable parameters: {5 * SIDES:,} (" in shown
    assert (
        main(["params", *tiny_arguments, "--model.budget.like", "study/lora.yaml", "--no_memory"]) == 0
    )  # or to where we are
    assert f"budget {5 * SIDES:,}: r 10" in capsys.readouterr().out
    assert main(["params", *tiny_arguments, "--model.budget.like", "lora.yml"]) == 2
    assert "model.budget.like: the file 'lora.yml' does not exist" in capsys.readouterr().err


def test_a_bad_budget_is_one_sentence(tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", *tiny_arguments, "--model.budget", "30o0k"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("smoa_lightning: model.budget is '30o0k'; it takes")
