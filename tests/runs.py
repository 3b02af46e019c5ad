"""How a run ends without warning, and where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.training.module import FineTuneModule


class Killed(BaseException):
    """Stands for the loss of the machine: nothing may rely on handling it."""


def die_at_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Make training end without warning before optimizer step number ``step`` (from 0)."""
    original = FineTuneModule.on_before_optimizer_step

    def hook(self: FineTuneModule, optimizer: Any) -> None:
        if self.trainer.global_step == step:
            raise Killed
        original(self, optimizer)

    monkeypatch.setattr(FineTuneModule, "on_before_optimizer_step", hook)


def interrupt_in_last_scoring(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `fit`, which ends without warning after training, before the report rows are scored."""

    def die(self: FineTuneModule) -> None:
        if not self.scoring_base_model:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FineTuneModule, "on_test_start", die)
        with pytest.raises(Killed):
            main(["fit", *arguments])


def only_run(root: Path) -> Path:
    (record,) = root.glob("*/version_*/record.json")
    return record.parent
