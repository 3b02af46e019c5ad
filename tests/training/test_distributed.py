"""Two processes on a CPU give the scores and the loss of one process with batches twice as large."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smoa_lightning.__main__ import main


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("distributed")
    found = {}
    for processes in (1, 2):
        folder = root / str(processes)
        command = ["fit"]
        command += ["--config", str(Path(__file__).parents[2] / "experiments" / "piqa.yaml")]
        command += ["--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)]
        command += ["--data.source", "local", "--data.path", str(piqa_folder), "--data.selection_rows", "16"]
        command += ["--model.adapter.r", "4", "--data.batch_size", str(16 // processes)]
        command += ["--trainer.devices", str(processes), "--trainer.accelerator", "cpu"]
        command += ["--trainer.strategy", "ddp" if processes > 1 else "auto", "--trainer.max_epochs", "1"]
        command += ["--trainer.enable_progress_bar", "false", "--run.folder", str(folder)]
        run(command, processes)
        found[processes] = folder
    return found


def run(command: list[str], processes: int) -> None:
    """Two processes are started as a user starts them; of one the start is not what is looked at."""
    if processes == 1:
        torch.set_num_threads(1)
        assert main(command) == 0
        return
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-m", "smoa_lightning", *command]
    done = subprocess.run(whole, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("backbone: local (") == 1  # only the first process shows notes


def items(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_item_is_scored_once_and_alike(records: dict[int, Path]) -> None:
    one, two = (items(records[n] / "base_items.jsonl") for n in (1, 2))
    assert [item["row"] for item in two] == list(range(24))
    for a, b in zip(one, two, strict=True):
        assert a["log_likelihood"] == pytest.approx(b["log_likelihood"], abs=1e-3)


def test_metrics_and_loss_are_those_of_all_processes(records: dict[int, Path]) -> None:
    one, two = (json.loads((records[n] / "record.json").read_text()) for n in (1, 2))
    assert two["status"] == "finished"
    right = sum(item["prediction_acc"] == item["label"] for item in items(records[2] / "items.jsonl"))
    assert two["metrics"]["report/acc"] == pytest.approx(right / 24)
    assert two["metrics"]["train/loss"] == pytest.approx(one["metrics"]["train/loss"], rel=1e-3)
    assert (records[2] / "adapter" / "best" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_loss_with_a_teacher_is_that_of_all_processes(
    cached: bool, tiny_backbone: Path, piqa_folder: Path, tmp_path: Path
) -> None:
    """47 rows in batches of 16: a process has fewer rows than the other in the last step of an epoch."""
    teacher, points = tmp_path / "teacher", []
    shutil.copytree(tiny_backbone, teacher)
    weights = load_file(teacher / "model.safetensors")
    save_file({name: 1.5 * value for name, value in weights.items()}, teacher / "model.safetensors", {"format": "pt"})
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        command = ["fit", "--config", str(Path(__file__).parents[2] / "experiments" / "piqa.yaml")]
        command += ["--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)]
        command += ["--data.source", "local", "--data.path", str(piqa_folder), "--data.selection_rows", "0"]
        command += ["--data.limit_train_rows", "47", "--model.adapter.r", "4", "--trainer.log_every_n_steps", "1"]
        command += ["--data.batch_size", str(16 // processes), "--trainer.devices", str(processes)]
        command += ["--model.distillation.teacher", str(teacher), "--model.distillation.positions", "all"]
        command += ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp" if processes > 1 else "auto"]
        command += ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--run.folder", str(folder)]
        command += ["--run.score_base", "false", "--run.score_report", "false", "--forgetting.text", "null"]
        command += ["--model.distillation.cache_folder", str(folder) + "_cache"] if cached else []
        run(command, processes)
        if cached:  # each process has computed a part of the rows
            cache = json.loads((folder / "record.json").read_text())["teacher"]["cache"]
            assert cache["rows"] == cache["computed_rows"] == 47
            assert len(list((tmp_path / f"{processes}_cache").rglob("*.safetensors"))) == processes
        scalars = EventAccumulator(str(folder)).Reload()
        names = ("train/loss", "train/ce", "train/kl")
        points.append([[event.value for event in scalars.Scalars(name)] for name in names])
    assert len(points[0][0]) == 3
    assert points[0][2][0] > 1e-3
    assert torch.allclose(torch.tensor(points[0]), torch.tensor(points[1]), rtol=1e-3)


@pytest.mark.slow
def test_written_replies_are_gathered_from_all_processes(records: dict[int, Path], tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        command = ["test", "--run.folder", str(folder)]
        command += ["--ckpt_path", str(records[1] / "checkpoints" / "best.ckpt"), "--data.protocol", "generation"]
        command += ["--data.max_new_tokens", "3", "--data.eval_batch_size", "5", "--trainer.accelerator", "cpu"]
        command += ["--trainer.devices", str(processes), "--trainer.strategy", "ddp" if processes > 1 else "auto"]
        command += ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
        run(command, processes)
        found.append((json.loads((folder / "evaluation.json").read_text())["metrics"], items(folder / "items.jsonl")))
    (one, own), (two, gathered) = found
    assert [item["row"] for item in gathered] == list(range(24))
    assert [item["reply"] for item in gathered] == [item["reply"] for item in own]
    assert one.keys() == two.keys()
    assert {"report/acc", "report/unparsed_rate", "report/perplexity", "report/general_perplexity"} <= two.keys()
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-4), name
