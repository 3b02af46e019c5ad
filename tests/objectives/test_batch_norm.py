"""A backbone with batch norm: its statistics are in no checkpoint, so training must not change them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

from smoa_lightning.__main__ import main

from ..runs import only_run
from .test_image_runs import EXPERIMENTS, flags

METHODS = {
    "head": ["--config", str(EXPERIMENTS / "adapters" / "frozen.yaml")],
    "lora": ["--model.adapter=peft.LoraConfig", "--model.adapter.target_modules=.*convolution", "--model.adapter.r=2"],
    "full": ["--config", str(EXPERIMENTS / "adapters" / "full.yaml")],
}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ResNet, whose statistics are not those of the images."""
    folder = tmp_path_factory.mktemp("resnet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
        ResNetModel(ResNetConfig(num_channels=3, **sizes)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_the_loaded_run_is_the_model_that_was_scored(
    method: str, resnet: Path, image_folder: Path, tmp_path: Path
) -> None:
    arguments = [*flags(resnet, image_folder, tmp_path / "runs"), *METHODS[method], "--lr", "0.01"]
    arguments += ["--data.selection_rows", "9", "--trainer.max_epochs", "2", "--model.head_lr", "0.01"]
    assert main(["fit", *arguments]) == 0
    run = only_run(tmp_path / "runs")
    metrics = json.loads((run / "record.json").read_text())["metrics"]
    assert metrics["report/nll"] != pytest.approx(metrics["base/nll"], abs=1e-3)
    test = ["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--run.folder", str(tmp_path / "t")]
    assert main([*test, "--trainer.accelerator", "cpu"]) == 0
    again = json.loads((tmp_path / "t" / "evaluation.json").read_text())["metrics"]
    assert again["report/nll"] == pytest.approx(metrics["report/nll"], abs=1e-6)
