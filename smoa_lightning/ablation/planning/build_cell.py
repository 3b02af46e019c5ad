"""A cell of a study, built as ``fit`` builds it, with its adapter on a backbone without weights; and its work."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from smoa_lightning.ablation.planning.cell_cost import Work, selection_passes
from smoa_lightning.ablation.planning.probe import limited
from smoa_lightning.ablation.study.space import Cell, Study, command_line
from smoa_lightning.adapters.budget import countable
from smoa_lightning.adapters.combine import attach_strategy
from smoa_lightning.backbones.backbone import load_skeleton
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.cli import FineTuneCLI
from smoa_lightning.training.module import FineTuneModule

# Flags in addition to those of the run: nothing is written or shown, and no other process is started.
QUIET = (
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.devices=1", "--trainer.num_nodes=1"),
)


@dataclass
class BuiltCell:
    """The objects of a cell, without the backbone's weights.

    Attributes:
        cell: The cell.
        module: The model.
        data: The data module.
        trainer: The trainer, which writes nothing.
        parameters: Trainable parameters.
        total: Parameters of the backbone.
        seconds: Time to make these objects from the command line.
    """

    cell: Cell
    module: FineTuneModule
    data: TaskDataModule
    trainer: L.Trainer
    parameters: int
    total: int
    seconds: float


def build(cell: Cell, study: Study, temporary: Path, values: Mapping[str, Any] | None = None) -> BuiltCell:
    """Build a cell as ``fit`` does, with its adapter on a backbone without weights.

    Args:
        cell: The cell.
        study: The study of the cell.
        temporary: Folder for files that a library writes anyway.
        values: Values of the searched settings; None for one example of each.

    Raises:
        UserError: Settings, budget, adapter or data source of the cell are refused.
    """
    began = time.monotonic()
    examples = {parameter.key: parameter.example for parameter in cell.parameters}
    flags = {**cell.flags, **(examples if values is None else values)}
    flags = {key: value for key, value in flags.items() if key != "ckpt_path"}  # only `fit` has this flag
    flags["seed_everything"] = study.seeds[0]
    arguments = [*command_line(cell.files, flags), *QUIET, f"--trainer.default_root_dir={temporary}"]
    cli = FineTuneCLI(arguments, run=False)
    module, data = cli.model, cli.datamodule
    data.resolve()
    module.resolve_budget()
    data.processor = module.processor
    data.sets.fit_context(module.limits)
    seconds = time.monotonic() - began
    network = load_skeleton(module.backbone_config, module.location)
    total = sum(p.numel() for p in network.parameters())
    parameters = 0 if module.frozen_backbone else total
    if module.adapter_config is not None:
        prompt = None if module.prompt_config is None else countable(module.prompt_config)
        adapted = attach_strategy(network, countable(module.adapter_config), prompt, module.adapter_seed)
        parameters = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    return BuiltCell(cell, module, data, cli.trainer, parameters, total, seconds)


def work_of(built: BuiltCell) -> Work:
    """Return the work of a run of a cell, from its rows and its trainer's settings. This encodes the rows.

    Raises:
        UserError: Rows cannot be used, or the interval between validations is longer than an epoch.
    """
    data, trainer, began = built.data, built.trainer, time.monotonic()
    steps, passes, selection, report = 0, 0, 0, 0
    if data.has_report:
        data.setup("test")
        report = _rows(data.test_dataloader(), trainer.limit_test_batches)
    if not built.module.frozen:
        data.setup("fit")
        batches = limited(len(data.train_dataloader()), trainer.limit_train_batches)
        steps = _steps(trainer, batches)
        selection = _rows(data.val_dataloader(), trainer.limit_val_batches)
        if selection:
            every = trainer.check_val_every_n_epoch
            check = _check_batch(trainer, batches)
            passes = selection_passes(steps, batches, trainer.accumulate_grad_batches, check, every)
    built.seconds += time.monotonic() - began
    return Work(steps, passes, selection, report)


def _steps(trainer: L.Trainer, batches: int) -> int:
    """Return the value that ``Trainer.estimated_stepping_batches`` will have."""
    if trainer.max_epochs == -1:
        if trainer.max_steps == -1:
            raise UserError("the run has no end: set trainer.max_epochs or trainer.max_steps")
        return trainer.max_steps
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * max(trainer.max_epochs or 1, 1)
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def _check_batch(trainer: L.Trainer, batches: int) -> int:
    """Return the number of micro-batches between two validations."""
    interval = trainer.val_check_interval
    if interval is None or isinstance(interval, str):
        raise UserError("the plan cannot predict the time of a run with validations by clock time: set "
                        "trainer.val_check_interval to a number")  # fmt: skip
    if isinstance(interval, int):
        if interval > batches and trainer.check_val_every_n_epoch is not None:
            raise UserError(
                f"trainer.val_check_interval is {interval}, but an epoch has only {batches} batches: lower it, or set "
                "trainer.check_val_every_n_epoch to null"
            )
        return interval
    return max(1, int(batches * interval))


def _rows(loaders: Any, limit: int | float | None) -> int:
    """Return the number of rows in the batches within a limit."""
    each = loaders if isinstance(loaders, list) else [loaders]
    return sum(len(batch) for loader in each for batch in loader.batches[: limited(len(loader), limit)])
