"""The TensorBoard log of a run: one event file, and each point once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from smoa_lightning.records.tensorboard_tags import is_curve, tag_of


class RunLogger(TensorBoardLogger):
    """A TensorBoard log that stays open between scoring, training and scoring, and that can be committed."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """Open the log of a run.

        Args:
            folder: The folder of the run, in which the event file is.
            purge_step: TensorBoard drops points of earlier processes from this step; ``None`` for a new run.
        """
        # A new run needs a session start as well: TensorBoard drops points at each session start but the first.
        super().__init__(folder, name="", version="", default_hp_metric=False, purge_step=purge_step or 0)
        self._early: tuple[int | None, set[str]] | None = None
        self.compares_report = False  # whether the base model has points of ``report/``, so that there is a curve

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write points of curves, except those that :meth:`write_early` has just written.

        Numbers that a run has once are no curves: they are in the table of results and in the HPARAMS tab.
        """
        if self._early == (step, set(metrics)):
            self._early = None
            return
        curves = {name: value for name, value in metrics.items() if is_curve(name)}
        single = () if self.compares_report else ("report/",)
        points = {tag_of(name): value for name, value in curves.items() if not name.startswith(single)}
        if points and points.keys() != {tag_of("epoch")}:
            super().log_metrics(points, step)

    @rank_zero_only
    def write_early(self, metrics: Mapping[str, Any], step: int) -> None:
        """Write the points of a step before Lightning does, and skip them then."""
        self.log_metrics(metrics, step)
        self._early = (step, set(metrics))

    @rank_zero_only
    def commit(self) -> None:
        """Flush all points to disk."""
        if self._experiment is None:
            return
        self.experiment.flush()
        for file in Path(self.log_dir).glob("events.out.tfevents.*"):
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    def save(self) -> None:
        """Write no ``hparams.yaml``: the settings of a run are in ``config.yaml`` and in its record."""
        self.commit()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush, and stay open: Lightning ends the log after each scoring, and a closed log begins a new file."""
        self.commit()


def write_step_points(trainer: L.Trainer) -> None:
    """Write the points of the optimizer step that was just done, and flush the log.

    Lightning writes them after the hook in which a checkpoint is committed. A run that is killed in between would
    resume after the step, without its points.
    """
    logger, connector = trainer.logger, trainer._logger_connector
    if not isinstance(logger, RunLogger):
        return
    stepping = trainer.training and connector._first_loop_iter is not None
    if stepping and connector.should_update_logs and (logged := connector.metrics["log"]):
        points = {name: float(value) for name, value in logged.items()} | {"epoch": trainer.current_epoch}
        logger.write_early(points, trainer.fit_loop.epoch_loop._batches_that_stepped)
    logger.commit()
