"""Fixtures that make small studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.space import Study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Return a function that makes a study from a few keys, with piqa.yaml as its base."""

    def make(**content: Any) -> Study:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump({"base": [str(EXPERIMENTS / "piqa.yaml")], **content}, sort_keys=False))
        return load_study([file])

    return make


@pytest.fixture
def make(tiny_backbone: Path, piqa_folder: Path, tmp_path: Path) -> Callable[..., Study]:
    """Return a function that makes a study with the tiny backbone and a few rows."""

    def written(axes: Any, overrides: Any = (), **keys: Any) -> Study:
        flags = {
            "model.backbone.source": "local",
            "model.backbone.path": str(tiny_backbone),
            "data.source": "local",
            "data.path": str(piqa_folder),
            "data.batch_size": 8,
            "data.limit_train_rows": 60,
            "data.selection_rows": 10,
            "trainer.max_epochs": 1,
            "trainer.accelerator": "cpu",
            "forgetting.text": None,
            **dict(overrides),
        }
        content = {
            "base": [f"{EXPERIMENTS}/piqa.yaml"], "name": "tiny", "axes": axes, "seeds": [0, 1], "overrides": flags,
        }  # fmt: skip
        file = tmp_path / "tiny.yaml"
        file.write_text(yaml.safe_dump({**content, **keys}))
        return load_study([file])

    return written
