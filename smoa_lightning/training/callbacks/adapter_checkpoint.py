"""Commits the state of a run: checkpoints without frozen weights, and adapters as peft folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from smoa_lightning.common.atomic_files import copy_linked
from smoa_lightning.configuration.ranges import check_value
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.encoding.system_text import shared_system_text
from smoa_lightning.records.metric_table import better
from smoa_lightning.training.adapter_folder import save_adapter
from smoa_lightning.training.callbacks.rank_monitor import RankMonitor
from smoa_lightning.training.run_checkpoints import BEST, LAST, committing
from smoa_lightning.training.run_logger import write_step_points
from smoa_lightning.training.sharding import whole_weights
from smoa_lightning.training.trainer_checks import check_checkpoint_io


def _data(trainer: L.Trainer) -> TaskDataModule:
    return trainer.datamodule  # type: ignore[attr-defined, no-any-return]


class WholeFileIO(TorchCheckpointIO):
    """Writes a checkpoint directly to its path, which is in a folder that becomes valid by one rename.

    Lightning's class writes a temporary file and moves it, which is not one step across file systems.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; other callbacks may name a folder that does not exist yet."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)


class AdapterCheckpoint(Checkpoint):
    """Commit the resume point often, and the best checkpoint and adapter at each new best score.

    The best score is the best value of the task's selection metric on the selection rows, and of equal ones the first.
    Each commit is one folder (:mod:`smoa_lightning.training.run_checkpoints`), so a killed run has the state before or
    after the commit.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        """Set the number of steps that an interruption can lose.

        Args:
            every_n_steps: Optimizer steps between two resume points; each validation commits one too.
        """
        check_value("checkpoint.every_n_steps", every_n_steps)
        self.every_n_steps = every_n_steps
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.ties = 0  # later validations with the best score
        self.best_metrics: dict[str, float] = {}  # selection scores, loss and ranks of the best state
        self._last_saved = 0

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Let checkpoints be written where they are committed.

        Raises:
            UserError: The trainer has a plugin that writes checkpoints its own way.
        """
        io = trainer.strategy.checkpoint_io  # Lightning makes a TorchCheckpointIO if there is no plugin
        check_checkpoint_io(None if type(io) in (TorchCheckpointIO, WholeFileIO) else io)
        trainer.strategy.checkpoint_io = WholeFileIO()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """Commit a resume point after enough optimizer steps.

        Before a validation, only the validation commits one. A run that is killed in between then repeats the step and
        does the validation.
        """
        loop = trainer.fit_loop
        due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
        if trainer.global_step - self._last_saved >= self.every_n_steps and not due:
            self._commit(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Commit the scores, with the best checkpoint and adapter if the score has improved."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metric = _data(trainer).sets.primary("selection")
        score = float(trainer.callback_metrics[f"selection/{metric}"])
        improved = self.best_score is None or better(metric, score, self.best_score)
        self.ties = 0 if improved else self.ties + (score == self.best_score)
        if improved:
            self.best_score = score
        self._commit(trainer, pl_module, best=improved)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Commit the last adapter; without validation it is the best adapter too."""
        self._commit(trainer, pl_module, best=self.best_score is None, ended=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the facts about the best state for a resumed run."""
        best = {"best_score": self.best_score, "best_step": self.best_step, "best_metrics": self.best_metrics}
        return best | {"ties": self.ties, "last_saved": self._last_saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the facts about the best state of the interrupted run."""
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]
        self.best_metrics, self._last_saved = state_dict["best_metrics"], state_dict["last_saved"]
        self.ties = state_dict.get("ties", 0)  # without them in checkpoints before version 0.3

    def facts(self, steps: int) -> dict[str, Any]:
        """Return the facts about the best state for the record of a run of so many steps."""
        return {"step": self.best_step, "selection_score": self.best_score, "ties": self.ties, "steps": steps}

    def _commit(self, trainer: L.Trainer, pl_module: Any, best: bool = False, ended: bool = False) -> None:
        resumable = not pl_module.within_step  # within an accumulated step, the gradients so far would be lost
        if not (resumable or best):
            return
        if best:
            self.best_step, self.best_metrics = trainer.global_step, self._selection(trainer)
        if resumable:
            self._last_saved = trainer.global_step
            write_step_points(trainer)
        run, writes = Path(trainer.default_root_dir), trainer.is_global_zero
        with committing(run, trainer.global_step, writes) as folder:
            name = LAST if resumable else BEST
            trainer.save_checkpoint(folder / name, weights_only=False)  # all processes take part; one writes
            if writes and best and resumable:
                copy_linked(folder / LAST, folder / BEST)
            adapters = [*(["best"] if best else []), *(["last"] if ended else [])]
            weights = whole_weights(pl_module) if adapters else None
            same: Path | None = None
            for place in [folder / "adapter" / which for which in adapters] if writes else []:
                save_adapter(pl_module, place, self._facts(trainer, place.name), weights, same)
                same = place
        trainer.strategy.barrier()  # the other processes read the committed files

    def _selection(self, trainer: L.Trainer) -> dict[str, float]:
        """Return selection scores, loss and ranks of the current state."""
        logged = trainer.callback_metrics.items()
        metrics = {k: float(v) for k, v in logged if k.startswith(("selection/", "train/loss"))}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RankMonitor):
                metrics |= callback.means()
                callback.keep_spectra()
        return metrics

    def _facts(self, trainer: L.Trainer, name: str) -> dict[str, Any]:
        data = _data(trainer)
        return {
            "task": data.name,
            "data_source": data.source,
            "add_bos": data.encoding.add_bos,
            "chat_template": next(iter(data.sets.trained.values())).encoding.template,
            "system": shared_system_text(data.sets.trained.values()),  # ``generate`` puts it before prompts
            "which": name,
            "step": trainer.global_step,
            "selection": {"metric": data.sets.primary("selection"), "score": self.best_score},
        }
