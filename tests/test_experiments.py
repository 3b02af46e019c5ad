"""Every shipped YAML file runs: tasks, backbones and the paper's settings here, strategies in test_strategies.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from smoa_lightning.__main__ import main
from smoa_lightning.data.tasks import get_task
from smoa_lightning.embedded import backbone_folder

from .data.made_rows import write_folder

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TASKS = [p for p in sorted(EXPERIMENTS.glob("*.yaml")) if p.stem not in ("base", "paper")]
OVERLAYS = [EXPERIMENTS / "paper.yaml", *sorted(EXPERIMENTS.glob("backbones/*.yaml"))]
STRATEGIES = sorted(EXPERIMENTS.glob("adapters/*.yaml"))


def test_nothing_is_left_out() -> None:
    others = [file for place in ("glue", "images", "overlays") for file in EXPERIMENTS.glob(f"{place}/*.yaml")]
    assert {*TASKS, *OVERLAYS, *STRATEGIES, *others, EXPERIMENTS / "base.yaml"} == set(EXPERIMENTS.rglob("*.yaml"))


CASES = [(task, None) for task in TASKS] + [(EXPERIMENTS / "piqa.yaml", overlay) for overlay in OVERLAYS]


@pytest.mark.parametrize(
    ("task", "overlay"), CASES, ids=[f"{t.stem}-{o.stem}" if o else f"{t.stem}-alone" for t, o in CASES]
)
def test_one_step(task: Path, overlay: Path | None, tmp_path: Path) -> None:
    files = ["--config", str(task)] + (["--config", str(overlay)] if overlay else [])
    settings = yaml.safe_load(task.read_text())["data"]
    reported = settings.get("report_tasks", [])
    held_out = [] if "selection" in settings else ["--data.selection_rows", "2"]
    for name in [settings["task"], *reported]:
        write_folder(tmp_path / "rows" / (name if reported else ""), name)
    status = main(
        [
            *("fit", *files, "--run.root", str(tmp_path)),
            *("--model.backbone.source", "local", "--model.backbone.path", str(backbone_folder())),
            *("--data.source", "local", "--data.path", str(tmp_path / "rows"), "--data.batch_size", "3"),
            *("--data.limit_report_rows", "4", "--data.max_new_tokens", "4", *held_out),
            *("--trainer.max_steps", "1", "--model.warmup", "0", "--trainer.check_val_every_n_epoch", "1"),
            *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
            *("--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1", "--data.eval_batch_size", "4"),
            *("--rank_monitor.max_layers", "1", "--forgetting.max_documents", "4"),
        ]
    )
    assert status == 0
    (file,) = tmp_path.glob("*/*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "finished"
    protocol = get_task((reported or [settings["task"]])[0]).protocol(settings.get("protocol"))
    assert {f"base/{protocol.metric}", f"report/{protocol.metric}"} <= record["metrics"].keys()
    assert (file.parent / "adapter" / "last").is_dir()
    assert record["metrics"]["parameters/trainable"] > 0
