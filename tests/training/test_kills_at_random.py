"""Commands of several processes that are killed at random times end as if they had not been killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import EXPERIMENTS
from tests.training.test_kills import differences, result

STUDY = """
name: small
base: [{experiments}/piqa.yaml]
axes:
  method:
    - lora: {{config: {experiments}/adapters/lora.yaml, model.adapter.init_args.lora_dropout: 0.2}}
    - smoa: {{config: {experiments}/adapters/smoa_blocks.yaml, r: 4, dropout: 0.1}}
baseline: {{method: lora}}
objective: acc
seeds: 2
retries: 0
overrides:
  model.backbone.source: local
  model.backbone.path: {backbone}
  data.source: local
  data.path: {piqa}
  data.selection_rows: 16
  data.batch_size: 8
  data.limit_train_rows: 120
  trainer.max_epochs: 2
  trainer.accelerator: cpu
  checkpoint.every_n_steps: 5
"""


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, "-m", "smoa_lightning", *command]
    with log.open("ab") as output:
        return subprocess.Popen(whole, stdout=output, stderr=output, env=environment, start_new_session=True)


def kill_until_done(command: list[str], log: Path, kills: int, longest: float) -> int:
    """Kill all processes of a command at random times, at most ``kills`` times; return the number of kills."""
    source, done = random.Random(0), 0
    while done < kills:
        process = start(command, log)
        try:
            status = process.wait(source.uniform(0.2, 0.7) * longest)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
        else:
            assert status == 0, log.read_text()[-3000:]
            return done
    assert start(command, log).wait(900) == 0, log.read_text()[-3000:]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes(seed: int, tiny_arguments: list[str], tmp_path: Path) -> None:
    command = ["fit", *tiny_arguments[:-2], "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command += ["--data.batch_size", "4", "--model.adapter.dropout", "0.2", "--trainer.log_every_n_steps", "2"]
    command += ["--trainer.max_epochs", "3", "--checkpoint.every_n_steps", "5", "--seed_everything", str(seed)]
    began = time.monotonic()
    assert kill_until_done([*command, "--run.root", str(tmp_path / "whole")], tmp_path / "whole.log", 0, 0) == 0
    longest = time.monotonic() - began
    root = tmp_path / "killed"
    kills = kill_until_done([*command, "--run.root", str(root)], tmp_path / "killed.log", 6, longest)
    print(kills, "kills")
    assert kills >= 2
    assert differences(result(tmp_path / "whole"), result(root)) == []


def study_result(folder: Path) -> dict[str, Any]:
    runs = {}
    for run in sorted((folder / "runs").iterdir()):
        record = json.loads((run / "record.json").read_text())
        weights = load_file(run / "adapter" / "best" / "adapter_model.safetensors")
        runs[run.name] = {
            "status": record["status"],
            "metrics": {k: v for k, v in record["metrics"].items() if not k.startswith(("cost/", "base/"))},
            "items": (run / "items.jsonl").read_text(),
            "weights": {k: v.tolist() for k, v in weights.items()},
        }
    return runs


@pytest.mark.slow
def test_a_study(tiny_backbone: Path, piqa_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(STUDY.format(experiments=EXPERIMENTS, backbone=tiny_backbone, piqa=piqa_folder))
    command = ["ablate", "--config", str(file), "--workers", "2"]
    began = time.monotonic()
    assert kill_until_done([*command, "--root", str(tmp_path / "whole")], tmp_path / "whole.log", 0, 0) == 0
    longest = time.monotonic() - began
    expected = study_result(tmp_path / "whole" / "small")
    kills = 0
    for number in range(4):
        root = tmp_path / f"killed{number}"
        kills += kill_until_done([*command, "--root", str(root)], tmp_path / f"{number}.log", 5, longest * 0.8)
        assert differences(expected, study_result(root / "small")) == []
    print(kills, "kills")
    assert kills >= 10
