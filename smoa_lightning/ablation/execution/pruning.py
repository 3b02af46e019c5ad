"""Pruning: the search gets the score on the selection rows after every validation, and may end the trial."""

from __future__ import annotations

from typing import Any, Protocol

import lightning as L
from lightning.pytorch.callbacks import Callback

from smoa_lightning.ablation.execution.ledger import Pruned
from smoa_lightning.common.errors import UserError


class Reporter(Protocol):
    """Receives the scores of a trial, such as ``optuna.Trial``."""

    def report(self, value: float, step: int) -> None:
        """Report a value after a step."""

    def should_prune(self) -> bool:
        """Whether the trial must end."""


class TrialPruning(Callback):
    """Report the score to a trial after every validation, with its step, and end the trial if it is too bad.

    The step is ``trainer.global_step``, since an epoch may have several validations, and since a resumed run continues
    its steps. With several processes the first process decides, and all processes end.

    Args:
        trial: Receives the scores; needed only in the first process.
        metric: A metric of the selection rows, such as ``nll``.
    """

    def __init__(self, trial: Reporter | None, metric: str) -> None:
        self.trial, self.metric = trial, metric

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Report the score; raise :class:`Pruned` if the trial must end.

        Raises:
            Pruned: The trial must end.
            UserError: Validation does not measure the metric.
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
