"""Every shipped YAML file runs one step: training, scoring, record and adapter folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.embedded import backbone_folder

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TASKS = [p for p in sorted(EXPERIMENTS.glob("*.yaml")) if p.stem not in ("base", "paper")]
OVERLAYS = [EXPERIMENTS / "paper.yaml", *sorted(EXPERIMENTS.glob("*/*.yaml"))]


def test_nothing_is_left_out() -> None:
    assert {*TASKS, *OVERLAYS, EXPERIMENTS / "base.yaml"} == set(EXPERIMENTS.rglob("*.yaml"))


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda p: p.stem if p else "alone")
@pytest.mark.parametrize("task", TASKS, ids=lambda p: p.stem)
def test_one_step(task: Path, overlay: Path | None, piqa_folder: Path, tmp_path: Path) -> None:
    files = ["--config", str(task)] + (["--config", str(overlay)] if overlay else [])
    status = main(
        [
            *("fit", *files, "--run.root", str(tmp_path)),
            *("--model.backbone.source", "local", "--model.backbone.path", str(backbone_folder())),
            *("--data.source", "local", "--data.path", str(piqa_folder), "--data.batch_size", "8"),
            *("--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
            *("--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"),
        ]
    )
    assert status == 0
    (file,) = tmp_path.glob("*/*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "finished"
    assert "base/acc" in record["metrics"]
    frozen = overlay is not None and overlay.stem == "frozen"
    assert (file.parent / "adapter" / "last").is_dir() != frozen
    assert (record["metrics"]["parameters/trainable"] == 0) == frozen
