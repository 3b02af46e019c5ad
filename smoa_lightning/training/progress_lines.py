"""One line for each validation or epoch, where no progress bar shows how far a run is."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from smoa_lightning.common.console import is_quiet, is_terminal

logger = logging.getLogger(__name__)


class ProgressLines(Callback):
    """Log epoch, step, loss, selection score and time after each validation, and after an epoch without one."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said = -1  # the step of the last line

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin to measure the time."""
        self._began = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the line of a validation."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        metric = trainer.datamodule.sets.primary("selection")  # type: ignore[attr-defined]
        self._say(trainer, f"selection/{metric}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the line of an epoch, unless a validation at its end has done so."""
        if self._said != trainer.global_step:
            self._say(trainer)

    def _say(self, trainer: L.Trainer, *metrics: str) -> None:
        self._said = trainer.global_step
        known = trainer.callback_metrics
        values = [f"{name} {float(known[name]):.4f}" for name in ("train/loss", *metrics) if name in known]
        epoch = f"{trainer.current_epoch + 1}"
        epoch += f" of {trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        words = [f"epoch {epoch}", f"step {trainer.global_step:,}", *values]
        logger.info("%s, %.0f s", ", ".join(words), time.monotonic() - self._began)


def progress_lines(bar: Any, in_study: bool) -> list[Callback]:
    """Return the callback if a run has no progress bar; a study has its own lines.

    Args:
        bar: A progress bar of Lightning, or ``None``.
        in_study: Whether the run is one of a study.
    """
    shows_bar = bar is not None and is_terminal(sys.stdout)
    return [] if in_study or is_quiet() or shows_bar else [ProgressLines()]
