"""A callback that notes when the stages of a ``fit`` end, and the loss of every step: for fit_against_peers.py."""

from __future__ import annotations

import atexit
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback


class Marks(Callback):
    """Note wall and CPU time at the end of each stage; written when the process ends."""

    def __init__(self, losses: bool = False) -> None:
        self.marks: dict[str, list[float]] = {}
        self.losses: list[float] = []
        self._note_losses = losses
        self._mark("objects")
        atexit.register(self._write)

    def _mark(self, name: str) -> None:
        used = os.times()
        self.marks[name] = [time.time() - float(os.environ["STARTED"]), used.user + used.system]

    def _write(self) -> None:
        self._mark("end")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        text = json.dumps({"marks": self.marks, "losses": self.losses, "peak_mb": peak})
        Path(os.environ["MARKS"]).write_text(text, encoding="utf-8")

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Scoring begins: of the base model, or of the best adapter."""
        self._mark("scoring base" if "trained" not in self.marks else "scoring adapter")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Scoring ends."""
        self._mark("scored base" if "trained" not in self.marks else "scored adapter")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Everything is ready for training."""
        self._mark("training")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the first step, the last step and the loss."""
        if "step" not in self.marks:
            self._mark("step")
        self._mark("last step")
        if self._note_losses:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Training ends, with or without the last files."""
        self._mark("trained")


class LossMarks(Marks):
    """Note the loss of every step too."""

    def __init__(self) -> None:
        super().__init__(losses=True)
