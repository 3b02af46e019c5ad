"""A finished run of a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoa_lightning.__main__ import main

from ..conftest import EXPERIMENTS
from ..runs import only_run


@pytest.fixture(scope="module")
def short_arguments(tiny_backbone: Path, piqa_folder: Path) -> list[str]:
    """Flags of a run of a few steps, without its root."""
    return [
        *("--config", str(EXPERIMENTS / "piqa.yaml"), "--forgetting.text", "null", "--trainer.max_epochs", "1"),
        *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)),
        *("--data.source", "local", "--data.path", str(piqa_folder), "--data.limit_train_rows", "48"),
        *("--model.adapter.r", "4", "--data.batch_size", "8", "--data.selection_rows", "16"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
    ]


@pytest.fixture(scope="module")
def finished(short_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests must not change it."""
    root = tmp_path_factory.mktemp("finished")
    assert main(["fit", *short_arguments, "--run.root", str(root), "--trainer.log_every_n_steps", "1"]) == 0
    return only_run(root)
