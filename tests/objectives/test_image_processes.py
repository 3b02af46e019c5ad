"""Runs on images that are interrupted, or done by two processes: the result is that of one whole run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smoa_lightning.__main__ import main

from ..runs import Killed, die_at_step, interrupt_in_last_scoring, only_run
from ..training.test_distributed import run as start
from .test_augmentation import CHANGES
from .test_image_runs import flags

LONG = ["--data.augmentation", json.dumps(CHANGES), "--data.selection_rows", "9", "--trainer.max_epochs", "2"]
Model = Callable[[str], Path]


def test_a_run_that_trains_no_further_step_still_counts_images(
    vision_model: Model, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*flags(vision_model("vit"), image_folder, tmp_path), "--data.selection_rows", "9"]
    arguments += ["--trainer.max_epochs", "1", "--run.score_base", "false"]
    interrupt_in_last_scoring(arguments, monkeypatch)
    assert main(["fit", *arguments]) == 0
    metrics = json.loads((only_run(tmp_path) / "record.json").read_text())["metrics"]
    assert metrics["cost/train_images"] == 39
    assert "cost/train_tokens" not in metrics


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_run_with_augmentation_equals_a_whole_one(
    workers: int, vision_model: Model, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies in the second epoch, between two checkpoints, and goes on with changed images: bit for bit."""
    more = [*LONG, "--checkpoint.every_n_steps", "4", "--data.num_workers", str(workers), "--run.score_base", "false"]
    whole, cut = (["fit", *flags(vision_model("vit"), image_folder, tmp_path / name), *more] for name in ("w", "c"))
    assert main(whole) == 0
    with monkeypatch.context() as patch:
        die_at_step(patch, 8)
        with pytest.raises(Killed):
            main(cut)
    folder = only_run(tmp_path / "c")
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] in (4, 5, 6, 7)
    assert main(cut) == 0
    assert only_run(tmp_path / "c") == folder
    for file in ("adapter/last/adapter_model.safetensors", "adapter/best/adapter_model.safetensors"):
        one, other = load_file(only_run(tmp_path / "w") / file), load_file(folder / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    points = [EventAccumulator(str(only_run(tmp_path / n))).Reload().Scalars("train/loss") for n in ("w", "c")]
    assert [(e.step, e.value) for e in points[0]] == [(e.step, e.value) for e in points[1]]
    other = [*cut, "--data.augmentation", json.dumps(CHANGES[:1]), "--run.folder", str(folder)]
    before = (folder / "record.json").read_bytes()
    assert main(other) == 2  # the folder holds a run with other changes
    assert (folder / "record.json").read_bytes() == before


@pytest.mark.slow
def test_two_processes_are_one_with_larger_batches(vision_model: Model, image_folder: Path, tmp_path: Path) -> None:
    """39 rows in batches of 16, changed at random: the last batch of an epoch has fewer rows in one process."""
    changes = json.dumps([change | {"class_path": change["class_path"]} for change in CHANGES])
    found: list[tuple[Any, Any, Any]] = []
    for processes in (1, 2):
        arguments = flags(vision_model("vit"), image_folder, tmp_path / str(processes))
        arguments += ["--data.batch_size", str(16 // processes), "--trainer.devices", str(processes)]
        arguments += ["--trainer.strategy", "ddp" if processes > 1 else "auto", "--trainer.max_epochs", "2"]
        arguments += ["--data.augmentation", changes, "--data.selection_rows", "9"]
        start(["fit", *arguments], processes)
        run = only_run(tmp_path / str(processes))
        losses = [event.value for event in EventAccumulator(str(run)).Reload().Scalars("train/loss")]
        record = json.loads((run / "record.json").read_text())
        found.append((losses, record["metrics"], load_file(run / "adapter/last/adapter_model.safetensors")))
    (one, scores, weights), (two, other_scores, other_weights) = found
    assert len(one) == 6
    assert torch.allclose(torch.tensor(one), torch.tensor(two), rtol=1e-4)
    assert other_scores["report/nll"] == pytest.approx(scores["report/nll"], rel=1e-3)
    assert all(torch.allclose(weights[name], other_weights[name], rtol=1e-3, atol=1e-4) for name in weights)
    shutil.rmtree(tmp_path / "2")
