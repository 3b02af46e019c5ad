"""The settings and the final metrics of a run, for every logger."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from smoa_lightning.common.console import is_first_process
from smoa_lightning.common.errors import one_line
from smoa_lightning.records.hparams import CURVES, final_metrics, study_columns
from smoa_lightning.records.record import STUDY_FACTS
from smoa_lightning.records.tensorboard_tags import CONSTANT, tag_of
from smoa_lightning.training.loggers.contents import Table, log_table
from smoa_lightning.training.loggers.hparams_entry import entry
from smoa_lightning.training.loggers.place import enter, leave, places
from smoa_lightning.training.run_logger import RunLogger

notes = logging.getLogger(__name__)


def begin(trainer: L.Trainer, record: dict[str, Any], earlier: Mapping[str, Any], step: int | None) -> None:
    """Open the entries of a run, and write its settings; TensorBoard gets them at the end, with the final metrics.

    Args:
        trainer: The trainer of the run.
        record: The record of the run, which gets the identifiers of the entries.
        earlier: The identifiers in the record of the interrupted run.
        step: The step from which the run continues; ``None`` for a new run.
    """
    if not is_first_process():
        return
    group = places(record.get(STUDY_FACTS, {}), record["name"], record["hyperparameters"]["seed"])
    ids = enter(trainer.loggers, record["name"], group, dict(earlier), step)
    if ids:
        record["loggers"] = ids
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(columns_of(record) | group)


def compare_report(trainer: L.Trainer, compares: bool) -> None:
    """Set whether the report scores of a run are curves: those of the base model and those after training."""
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.compares_report = compares


def end(trainer: L.Trainer, record: Mapping[str, Any]) -> None:
    """Close the entries of a run with the status of its record."""
    for each in trainer.loggers if is_first_process() else ():
        try:
            leave([each], record["status"])
        except Exception as error:  # of a logger's library or server; the record is already written
            notes.warning("the entry in %s is not closed: %s", type(each).__name__, one_line(error, 300, kind=True))


def columns_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run and its place in a study, each as one number or text."""
    place = study_columns(record[STUDY_FACTS]) if STUDY_FACTS in record else {}
    columns: dict[str, Any] = record["hyperparameters"] | place
    return columns


def log_final(trainer: L.Trainer, record: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Write the final metrics, under the same names for all strategies.

    TensorBoard gets them as columns of its HPARAMS tab, and the scores as the table ``results``.

    Args:
        trainer: The trainer of the run.
        record: The record of the run.
        metrics: All metrics of the run.
    """
    if not is_first_process() or not trainer.loggers:
        return
    final, step = final_metrics(metrics), trainer.global_step
    measured = {name: value for name, value in final.items() if value != -1.0}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            tags = map(tag_of, CURVES) if isinstance(logger, RunLogger) else CURVES
            for summary in entry(columns_of(record) | final, tags):
                logger.experiment.file_writer.add_summary(summary, step)  # resuming forgets the points from its step on
        elif isinstance(logger, WandbLogger):
            logger.experiment.summary.update(measured)  # a point of its own would be a chart
        else:
            logger.log_metrics(measured, step)
    if table := results_table(metrics):
        log_table(trainer.loggers, table, step)
    for logger in trainer.loggers:
        logger.save()  # all points are on disk before the record says that the run is finished


def results_table(metrics: Mapping[str, float]) -> Table | None:
    """Return the scores with their standard errors: of the base model, the selection rows and the trained model.

    Times are left out, so that a resumed run has the same table.
    """
    parts = {"base": "base model", "selection": "selection rows", "report": "after training"}
    names = [name.partition("/") for name in metrics if not name.endswith("_stderr")]
    scores = list(dict.fromkeys(rest for first, _, rest in names if first in parts))
    shown = [part for part in parts if any(f"{part}/{score}" in metrics for score in scores)]
    if not scores:
        return None
    rows = [[score, *(_score(metrics, f"{part}/{score}") for part in shown)] for score in scores]
    if "parameters/trainable" in metrics:
        rows.append(["trainable parameters", *[""] * (len(shown) - 1), f"{int(metrics['parameters/trainable']):,}"])
    return Table("results", ["metric (± standard error)", *(parts[part] for part in shown)], rows)


def _score(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    if name.endswith(CONSTANT):
        return f"{int(metrics[name]):,}"
    error = metrics.get(f"{name}_stderr")
    return f"{metrics[name]:.4f}" + ("" if error is None else f" ± {error:.4f}")
