"""A study of 12 runs without training, and a worker for it in this process."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.execution.work import Work
from smoa_lightning.ablation.execution.worker_id import WorkerId
from smoa_lightning.ablation.study.space import Study
from tests.ablation import fake_worker
from tests.conftest import EXPERIMENTS

GRID = f"""
name: grid
base: [{EXPERIMENTS}/piqa.yaml, {EXPERIMENTS}/backbones/embedded.yaml]
axes: {{r: [2, 4, 8, 16]}}
baseline: {{r: 2}}
objective: acc
seeds: 3
retries: 1
"""
SEARCH = """
search:
  parameters: {lr: {low: 1e-3, high: 1e-1, log: true}}
  objective: acc
  trials: 5
"""


def study_file(folder: Path, text: str = GRID) -> Path:
    file = folder / "grid.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def work(study: Study, folder: Path, fit: Any = fake_worker.fit) -> Work:
    """Return a worker in this process."""
    storage = open_storage(None, folder)
    tools = dataclasses.replace(fake_worker.TOOLS, fit=fit)
    return Work(study, folder, storage, tools, WorkerId.of(os.getpid()))
