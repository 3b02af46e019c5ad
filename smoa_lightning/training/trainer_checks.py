"""Checks of an instantiated Trainer: plugins, subclasses of callbacks, and what the callbacks look for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ThroughputMonitor
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.configuration.trainer_options import CALLBACKS, LIGHTNING, PRECISIONS, PROFILER, refused_callback
from smoa_lightning.records.metric_table import METRICS

TRAINED = (  # logged while training
    *("train/loss", "train/gradient_norm", "train/learning_rate", "train/mean_rank", "train/orthogonality_penalty"),
    *("cost/tokens_per_second", "cost/images_per_second", "cost/step_seconds", "cost/peak_memory_mb"),
)
NEED_LOGGER = (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor)


def check_trainer(trainer: L.Trainer, further: Sequence[Any] = ()) -> None:
    """Refuse callbacks, plugins and launchers that a run cannot follow.

    Args:
        trainer: The trainer, before a run has changed it.
        further: Callbacks that are added later.

    Raises:
        UserError: The message names the option and the reason.
    """
    for callback in (*trainer.callbacks, *further):  # type: ignore[attr-defined]
        _check_callback(callback)
    if isinstance(trainer.profiler, PyTorchProfiler):  # type: ignore[attr-defined]
        raise UserError(f"trainer.profiler: {type(trainer.profiler).__name__} is not supported, since {PROFILER}")  # type: ignore[attr-defined]
    precision = trainer.precision_plugin.precision
    if precision not in PRECISIONS:
        raise UserError(
            f"trainer.plugins: {type(trainer.precision_plugin).__name__} has the precision {precision}, but a run "
            f"takes {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, since the trained parameters stay in float32"
        )
    check_checkpoint_io(getattr(trainer.strategy, "_checkpoint_io", None))
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"trainer.strategy: {type(trainer.strategy).__name__} with start_method spawn or fork is not supported, "
            "since a copied process would not have the state of this run: set start_method to popen"
        )


def check_checkpoint_io(io: CheckpointIO | None) -> None:
    """Refuse a plugin that writes checkpoints its own way; ``None`` is Lightning's default.

    Raises:
        UserError: The message names the plugin.
    """
    if io is not None:
        raise UserError(
            f"trainer.plugins: {type(io).__name__} is not supported, since a run writes each checkpoint itself, as a "
            "complete folder: leave it out"
        )


def _check_callback(callback: Any) -> None:
    for kind in type(callback).__mro__:
        reason = CALLBACKS.get(kind.__name__) if kind.__module__.split(".")[0] in LIGHTNING else None
        if reason is not None:
            raise refused_callback(type(callback).__name__, reason)


def check_observers(trainer: L.Trainer, validates: bool, tasks: Sequence[str] = (), logs: bool | None = None) -> None:
    """Refuse callbacks that look for a logger or a metric that this run does not have.

    Args:
        trainer: The trainer of the run, with its logger.
        validates: Whether selection rows are scored before training ends.
        tasks: The tasks of the selection rows. With several tasks, the metrics of each one are logged too.
        logs: Whether the run has a logger; ``None`` asks the trainer.

    Raises:
        UserError: The message names the callback and what it needs.
    """
    logs = bool(trainer.loggers) if logs is None else logs
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = type(callback).__name__
        if isinstance(callback, NEED_LOGGER) and not logs:
            raise UserError(f"trainer.callbacks: {name} needs a logger, but trainer.logger is false: set it to null")
        if isinstance(callback, EarlyStopping) and callback.strict:
            known = _are_known(trainer.callbacks)  # type: ignore[attr-defined]
            _check_monitor(name, callback.monitor, validates, tasks, known)


def _are_known(callbacks: Sequence[Any]) -> bool:
    """Whether no callback is the user's own, which may log metrics of any name."""
    return all(type(callback).__module__.split(".")[0] in (*LIGHTNING, "smoa_lightning") for callback in callbacks)


def _check_monitor(name: str, monitor: str, validates: bool, tasks: Sequence[str], own: bool) -> None:
    parts = ["selection", *(f"selection/{task}" for task in tasks if len(tasks) > 1)]
    known = [*TRAINED, *(f"{part}/{metric}" for part in parts for metric in METRICS)]
    if own and monitor not in known and monitor.removesuffix("_stderr") not in known:
        raise UserError(
            f"trainer.callbacks: {name} monitors {monitor!r}, which no run logs during training; "
            f"{the_nearest(nearest(monitor, known, 3))}"
        )
    if monitor.startswith("selection/") and not validates:
        raise UserError(
            f"trainer.callbacks: {name} monitors {monitor!r}, but training ends before the first scoring of the "
            "selection rows: lower trainer.val_check_interval, or train for a whole epoch"
        )


def check_share(trainer: L.Trainer, part: str, loaders: Any) -> None:
    """Refuse a share of the batches of a part that is less than one batch.

    Args:
        trainer: The trainer of the run.
        part: ``val`` or ``test``.
        loaders: The loaders of the part, one or a list.

    Raises:
        UserError: The message names the smallest valid share.
    """
    key = f"limit_{part}_batches"
    limit = getattr(trainer, key)
    for loader in loaders if isinstance(loaders, list) else [loaders]:
        count = len(loader)
        if isinstance(limit, float) and limit > 0 and count and int(count * limit) < 1:
            rows = "selection" if part == "val" else "report"
            raise UserError(
                f"trainer.{key} is {limit:g}, which leaves none of the batches ({count}) of the {rows} rows: set it to "
                f"a whole number, or to at least {1 / count:.3g}"
            )
