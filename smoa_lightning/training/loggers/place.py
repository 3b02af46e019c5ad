"""The entry of a run in W&B, MLflow, CSV and other loggers: name, group, and the same entry after a resume."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.training.loggers.csv_points import continue_csv
from smoa_lightning.training.run_logger import RunLogger

LIBRARIES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
Ids = dict[str, Any]


def check_loggers(setting: Any) -> None:
    """Refuse a logger whose library is missing, or that would keep checkpoints.

    Args:
        setting: ``trainer.logger``, before the classes are instantiated.

    Raises:
        UserError: The message names the extra to install, or the setting to leave out.
    """
    for logger in setting if isinstance(setting, list) else [setting]:
        if not isinstance(logger, Mapping) or "class_path" not in logger:
            continue
        name = str(logger["class_path"]).rpartition(".")[2]
        library = LIBRARIES.get(name)
        if library and importlib.util.find_spec(library) is None:
            raise UserError(
                f"trainer.logger: {name} needs the package {library}, which is not installed: "
                "pip install 'smoa-lightning[loggers]'"
            )
        if (logger.get("init_args") or {}).get("log_model"):
            raise UserError(
                f"trainer.logger: log_model of {name} is not supported, since a run writes its checkpoints and "
                "adapters to its own folder: leave it out"
            )


def places(study: Mapping[str, Any], name: str, seed: Any) -> dict[str, str]:
    """Return what groups a run: study, cell, stage and seed; without a study, the name without the seed is the cell.

    >>> places({}, "piqa-lora-r32-seed1-embedded", 1)
    {'study': '', 'cell': 'piqa-lora-r32-embedded', 'stage': 'run', 'seed': '1'}
    """
    cell = study.get("cell") or name.replace(f"-seed{seed}", "")
    return {
        "study": str(study.get("study", "")),
        "cell": str(cell),
        "stage": str(study.get("stage", "run")),
        "seed": str(study.get("seed", seed)),
    }


def enter(loggers: Iterable[Logger], name: str, group: Mapping[str, str], earlier: Ids, step: int | None) -> Ids:
    """Name and group the entries of a run before they are made; an interrupted run continues its own.

    Args:
        loggers: The loggers of the trainer. What the user has set stays.
        name: The name of the run.
        group: From :func:`places`.
        earlier: The identifiers of the interrupted run; empty for a new run.
        step: The step from which the run continues; ``None`` for a new run.

    Returns:
        Number and class of a logger -> the identifier of its entry, for the record.
    """
    ids: Ids = {}
    for number, logger in enumerate(loggers):
        key = f"{number} {type(logger).__name__}"
        known = earlier.get(key)
        if isinstance(logger, WandbLogger):
            ids[key] = _enter_wandb(logger, name, group, known)
        elif isinstance(logger, MLFlowLogger):
            ids[key] = _enter_mlflow(logger, name, group, known)
        elif isinstance(logger, CSVLogger | TensorBoardLogger) and not isinstance(logger, RunLogger):
            if known is not None:
                logger._version = known
            ids[key] = logger.version
            if step is not None and known is not None:
                _continue(logger, step)
    return ids


def _enter_wandb(logger: WandbLogger, name: str, group: Mapping[str, str], known: str | None) -> str:
    together = "/".join(filter(None, (group["study"], group["cell"])))
    options = logger._wandb_init
    defaults: dict[str, Any] = {"name": name, "group": together, "job_type": group["stage"]}
    defaults["tags"] = [f"seed{group['seed']}", *filter(None, [group["study"]])]
    for option, value in defaults.items():
        if options.get(option) is None:
            options[option] = value
    if known is not None and options.get("id") is None:
        options["id"] = known
    logger._name, logger._id = options["name"], options["id"]
    if options.get("anonymous") is None:
        options.pop("anonymous", None)  # newer versions of wandb have no such option
    try:
        return str(logger.experiment.id)
    except Exception as error:  # wandb has exceptions of its own, and of its server
        raise _no_answer("W&B", error) from error


def _enter_mlflow(logger: MLFlowLogger, name: str, group: Mapping[str, str], known: str | None) -> str:
    if logger._run_name is None:
        logger._run_name = name
    logger.tags = {**{key: value for key, value in group.items() if value}, **(logger.tags or {})}
    if known is not None and logger._run_id is None:
        logger._run_id = known
    try:
        return str(logger.run_id)
    except Exception as error:  # the store of MLflow has exceptions of its own, and of its database
        raise _no_answer(f"MLflow at {logger._tracking_uri}", error) from error


def _no_answer(what: str, error: Exception) -> UserError:
    return UserError(f"trainer.logger: {what} does not answer: {one_line(error, 300)}")


def _continue(logger: CSVLogger | TensorBoardLogger, step: int) -> None:
    """Drop the points of the interrupted run that its resumed run will write again."""
    if isinstance(logger, TensorBoardLogger):
        logger._kwargs["purge_step"] = step
        return
    continue_csv(logger, step)


def leave(loggers: Iterable[Logger], status: str) -> None:
    """End the entries of a run, so that the next run of the process has its own.

    Args:
        loggers: The loggers of the trainer.
        status: ``finished``, ``stopped`` or ``failed``.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger._experiment.finish(exit_code=0 if status == "finished" else 1)
            logger._experiment = None
        elif isinstance(logger, MLFlowLogger) and logger._initialized:
            ended = {"finished": "FINISHED", "stopped": "KILLED"}.get(status, "FAILED")
            logger.experiment.set_terminated(str(logger.run_id), ended)
        elif isinstance(logger, CSVLogger):
            logger.save()
