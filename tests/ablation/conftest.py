"""A fixture that makes small studies."""

from __future__ import annotations

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
