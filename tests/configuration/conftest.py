"""A package that shows whether code was run, and a run with an adapter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.__main__ import main

from ..runs import only_run
from .commands import full_parser

PLANTED = """
import pathlib
pathlib.Path({marker!r}).write_text("imported")
class Thing:
    def __init__(self, *args, **kwargs):
        pathlib.Path({marker!r}).write_text("made")
def function(*args, **kwargs):
    pathlib.Path({marker!r}).write_text("called")
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists as soon as the package `planted` is imported or called, or a named command runs."""
    file = tmp_path / "marker"
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "planted.py").write_text(PLANTED.format(marker=str(file)))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("no_code")
    arguments = [
        *("fit", "--config", str(Path(__file__).parents[2] / "experiments" / "piqa.yaml")),
        *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)),
        *("--data.source", "local", "--data.path", str(piqa_folder), "--run.root", str(root)),
        *("--model.adapter.r", "4", "--data.batch_size", "8", "--data.selection_rows", "8"),
        *("--trainer.max_steps", "2", "--run.score_base", "false", "--run.score_report", "false"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
    ]
    assert main(arguments) == 0
    return only_run(root)


@pytest.fixture(scope="module")
def fit_parser() -> Any:
    return full_parser("fit")
