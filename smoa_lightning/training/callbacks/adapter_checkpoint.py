"""Checkpoints that hold the adapter and no frozen weight, and the best and last adapter as peft folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.records.metric_table import better
from smoa_lightning.training.adapter_folder import save_adapter
from smoa_lightning.training.callbacks.rank_monitor import RankMonitor


def _data(trainer: L.Trainer) -> TaskDataModule:
    return trainer.datamodule  # type: ignore[attr-defined, no-any-return]


class AdapterCheckpoint(Checkpoint):
    """Write ``checkpoints/last.ckpt`` often, ``checkpoints/best.ckpt`` and ``adapter/best`` at each new best score.

    The best score is the best value of the task's selection metric on the selection rows. Every file is written under a
    temporary name and renamed, so an interruption leaves the one before.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        """Set how much work an interruption can cost.

        Args:
            every_n_steps: Optimizer steps between two writes of ``last.ckpt``; it is also written after validation.
        """
        self.every_n_steps = every_n_steps
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.best_metrics: dict[str, float] = {}  # selection scores, loss and ranks of the best state
        self._last_saved = 0

    @staticmethod
    def folder(trainer: L.Trainer) -> Path:
        """Return the folder of the Lightning checkpoints."""
        return Path(trainer.default_root_dir) / "checkpoints"

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """Write ``last.ckpt`` when enough optimizer steps have passed."""
        if trainer.global_step - self._last_saved >= self.every_n_steps:
            self._save_last(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the best checkpoint and adapter when the score improved, and ``last.ckpt`` in any case."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metric = _data(trainer).sets.primary("selection")
        score = float(trainer.callback_metrics[f"selection/{metric}"])
        if self.best_score is None or better(metric, score, self.best_score):
            self.best_score = score
            self._save_best(trainer, pl_module)
        self._save_last(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the last adapter; it is the best one as well where no validation took place.

        ``last.ckpt`` comes last: a run that is interrupted before it trains its last step again and ends properly.
        """
        if self.best_score is None:
            self._save_best(trainer, pl_module)
        self._save_adapter(trainer, pl_module, "last")
        self._save_last(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Keep what is known of the best state for a resumed run."""
        best = {"best_score": self.best_score, "best_step": self.best_step, "best_metrics": self.best_metrics}
        return best | {"last_saved": self._last_saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best state of the run that was interrupted."""
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]
        self.best_metrics, self._last_saved = state_dict["best_metrics"], state_dict["last_saved"]

    def _save_best(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.best_step = trainer.global_step
        logged = trainer.callback_metrics.items()
        self.best_metrics = {k: float(v) for k, v in logged if k.startswith(("selection/", "train/loss"))}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RankMonitor):
                self.best_metrics |= callback.means()
        self._save(trainer, "best.ckpt")
        self._save_adapter(trainer, pl_module, "best")

    def _save_last(self, trainer: L.Trainer, pl_module: Any) -> None:
        if pl_module.step_targets:  # within an accumulated step: its gradients so far would be lost
            return
        self._last_saved = trainer.global_step
        self._save(trainer, "last.ckpt")

    def _save(self, trainer: L.Trainer, name: str) -> None:
        path = self.folder(trainer) / name
        if trainer.world_size > 1:
            # every process takes part; Lightning writes the file in one step
            trainer.save_checkpoint(path, weights_only=False)
        else:
            with replacing(path) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)

    def _save_adapter(self, trainer: L.Trainer, pl_module: Any, name: str) -> None:
        if trainer.is_global_zero:
            with replacing(Path(trainer.default_root_dir) / "adapter" / name) as temporary:
                save_adapter(pl_module, temporary, self._facts(trainer, name))

    def _facts(self, trainer: L.Trainer, name: str) -> dict[str, Any]:
        data = _data(trainer)
        return {
            "task": data.name,
            "data_source": data.source,
            "add_bos": data.encoding.add_bos,
            "chat_template": next(iter(data.sets.trained.values())).encoding.template,
            "which": name,
            "step": trainer.global_step,
            "selection": {"metric": data.sets.primary("selection"), "score": self.best_score},
        }
