"""Several processes with a device each give the loss and the scores of one process.

With two devices they talk through NCCL. With one device there is one process, which talks to itself through gloo. On a
CPU there are two processes and gloo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import KIND


def parts(folder: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Metrics and scored items of a run."""
    items = [json.loads(line) for line in (folder / "base_items.jsonl").read_text().splitlines()]
    return json.loads((folder / "record.json").read_text())["metrics"], items


def test_processes_give_the_loss_and_the_scores_of_one(tiny_arguments: list[str], tmp_path: Path) -> None:
    several = KIND == "cpu" or torch.cuda.device_count() > 1
    processes, backend = 2 if several else 1, "nccl" if KIND == "cuda" and several else "gloo"
    ddp = ["--trainer.strategy", "lightning.pytorch.strategies.DDPStrategy"]
    ddp += ["--trainer.strategy.process_group_backend", backend]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name, count, strategy in (("one", 1, []), ("several", processes, ddp)):
        command = [sys.executable, "-m", "smoa_lightning", "fit", *tiny_arguments, *strategy]
        command += ["--trainer.accelerator", "gpu" if KIND == "cuda" else "cpu", "--trainer.devices", str(count)]
        command += ["--data.batch_size", str(8 // count), "--run.folder", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    (expected, items), (found, others) = (parts(tmp_path / name) for name in ("one", "several"))
    assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-2)
    assert [item["row"] for item in others] == [item["row"] for item in items]
    for one, other in zip(items, others, strict=True):
        assert other["log_likelihood"] == pytest.approx(one["log_likelihood"], rel=1e-3)
