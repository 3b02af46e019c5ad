"""Ending a trial early: the score on the selection rows is told to the search after every validation."""

from __future__ import annotations

from typing import Any, Protocol

import lightning as L
from lightning.pytorch.callbacks import Callback

from smoa_lightning.ablation.execution.ledger import Pruned
from smoa_lightning.common.errors import UserError


class Reporter(Protocol):
    """What is told about a trial; ``optuna.Trial`` is one."""

    def report(self, value: float, step: int) -> None:
        """Tell a value after a step."""

    def should_prune(self) -> bool:
        """Whether the trial is to end."""


class TrialPruning(Callback):
    """Tell a trial its score after every validation, at the step where it was measured, and end it if it lags.

    The step is ``trainer.global_step``: with validation in the middle of an epoch an epoch's number would name several
    scores, and a resumed run goes on where it was. With several processes the first one decides and all of them end.

    Args:
        trial: Whom to tell; needed in the first process only.
        metric: A metric of the selection rows, such as ``nll``.
    """

    def __init__(self, trial: Reporter | None, metric: str) -> None:
        self.trial, self.metric = trial, metric

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Tell the score; raise :class:`Pruned` if the trial is to end.

        Raises:
            Pruned: The trial is to end.
            UserError: The metric is not measured there.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        name = f"selection/{self.metric}"
        if name not in trainer.callback_metrics:
            near = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise UserError(f"the search needs {name}, but validation measures {near}")
        ends = False
        if trainer.is_global_zero and self.trial is not None:
            self.trial.report(float(trainer.callback_metrics[name]), trainer.global_step)
            ends = self.trial.should_prune()
        if trainer.strategy.broadcast(ends, src=0):
            raise Pruned(f"pruned at step {trainer.global_step}")
