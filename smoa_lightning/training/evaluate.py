"""The evaluation of a checkpoint, or of the base model: ``validate``, ``test`` and ``predict``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightning as L

from smoa_lightning.common.checksums import checksums_in, write_sealed
from smoa_lightning.common.console import is_first_process
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import EVALUATION, FILES, PREDICTIONS, SCORES, environment
from smoa_lightning.training.checkpoint import evaluated, log_differences
from smoa_lightning.training.lookups import floats
from smoa_lightning.training.processes import ending_together
from smoa_lightning.training.run_notes import evaluation_result
from smoa_lightning.training.trained_on import read_fitting
from smoa_lightning.training.unchanged import check_scoring_teacher

if TYPE_CHECKING:
    from smoa_lightning.training.run import Run


def evaluate(run: Run, trainer: L.Trainer, function: Callable[..., Any], checkpoint: str | None, **kwargs: Any) -> None:
    """Run an evaluation of the trainer, and write its metrics.

    Args:
        run: The run, with the folder of the evaluation.
        trainer: A trainer that writes to this folder.
        function: ``trainer.validate``, ``trainer.test`` or ``trainer.predict``.
        checkpoint: The checkpoint to evaluate; ``None`` for the base model.
        kwargs: Further arguments of ``function``.
    """
    began = time.monotonic()
    if checkpoint is not None:
        log_differences(run.config, evaluated(read_fitting(checkpoint, run.module)["config"]))
        kwargs["ckpt_path"] = checkpoint
        check_scoring_teacher(run.module, run.data.encoding.max_length, checkpoint)
    run.data.setup(function.__name__)  # reads and encodes the rows, so that a refused row leaves no folder
    run.folder.mkdir(parents=True, exist_ok=True)
    with ending_together(trainer):
        function(run.module, datamodule=run.data, weights_only=True, **kwargs)
    metrics = floats(trainer.callback_metrics, "")
    if not metrics and function != trainer.predict:
        raise UserError("there are no rows to score: the data do not have this split, or data.selection_rows is 0")
    if not is_first_process():
        return
    facts: dict[str, Any] = {"name": run.name, "checkpoint": checkpoint, "config": run.config, "metrics": metrics}
    facts |= {
        "other_classes": run.other_classes,
        FILES: checksums_in(run.folder, *SCORES, PREDICTIONS),
        "seconds": time.monotonic() - began,
        "environment": environment(),
    }
    write_sealed(run.folder / EVALUATION, facts)
    run.result = evaluation_result(run, metrics, "selection" if function == trainer.validate else "report")
