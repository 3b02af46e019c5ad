"""Measures the cost of the cells of a study: each cell is built as in ``fit``, and a few of its steps are timed.

The times cover the steps, rows and callbacks of a run. They do not cover writing checkpoints and logs. They also do not
cover that workers on one machine slow each other down beyond their share of the threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from smoa_lightning.ablation.execution.devices import THREADS, environment_of
from smoa_lightning.ablation.execution.durations import remaining_seconds
from smoa_lightning.ablation.execution.fitting import prepare_process
from smoa_lightning.ablation.planning.build_cell import BuiltCell, build, work_of
from smoa_lightning.ablation.planning.cell_cost import (
    CellCost,
    CellSize,
    RemainingRuns,
    Timing,
    Work,
    cost_of,
)
from smoa_lightning.ablation.planning.finished_runs import read_finished
from smoa_lightning.ablation.planning.probe import WARM_UP, Probe, ProbeFinished, limited
from smoa_lightning.ablation.planning.search_check import check_search, variants
from smoa_lightning.ablation.planning.variation import variations
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.backbones.backbone import load_model
from smoa_lightning.common.console import ON_STDERR
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.process_cache import process_cache
from smoa_lightning.records.metric_table import ACCURACIES

__all__ = ["CellCost", "Timing", "Work", "measure", "remaining_seconds"]

logger = logging.getLogger(__name__)

VARIANTS = 32  # values of the searched settings that are tried for a cell; a search with more is not refused


def measure(study: Study, folder: Path, workers: int) -> list[CellCost]:
    """Return the cost of each cell of a study, in the study's order.

    All cells are built before the first is timed. A cell is timed if runs of a kind remain, and no run of this kind is
    finished.

    Args:
        study: The study.
        folder: The study folder; nothing is written there.
        workers: Number of planned worker processes; the timing uses one worker's share of the threads.

    Raises:
        UserError: Cells cannot be run. The message names the first cell with its reason, and counts the others.
    """
    check_search(study, folder)
    with tempfile.TemporaryDirectory() as temporary, _threads_of(workers), _silence(), process_cache():
        found = read_finished(study, folder)
        varies = variations(study, folder, found)
        built = deque(_each(study.cells, lambda cell: build(cell, study, Path(temporary))))
        caches: set[str] = set()  # folders that an earlier cell fills
        to_time = [cell.name for cell in study.cells if RemainingRuns.of(study, found[cell.name]).needs_timing]

        def cost(cell: BuiltCell) -> CellCost:
            name = cell.cell.name
            work, timing = work_of(cell), None
            if name in to_time:
                position = to_time.index(name) + 1
                logger.info("timing %s (%d of %d)", name, position, len(to_time), extra=ON_STDERR)
                timing = time_cell(cell)
                timing = dataclasses.replace(timing, teacher=0.0) if timing.cache in caches else timing
                caches.add(timing.cache)
            size = CellSize(cell.parameters, cell.total, torch.get_num_threads(), workers)
            mine = varies[name]
            return cost_of(study, cell.cell, found[name], work, timing, mine, size)

        return _each((built.popleft() for _ in study.cells), cost)  # each cell's memory is freed after its timing


def check_cells(study: Study, cells: Sequence[Cell]) -> None:
    """Build searched cells and read their rows, until values of the search are found with which rows are scored.

    Raises:
        UserError: A search would never score its trials, or cells cannot be run; see :func:`measure`.
    """
    with tempfile.TemporaryDirectory() as temporary, _silence(), process_cache():
        _each(cells, lambda cell: _check_scored(cell, study, Path(temporary)))


def _check_scored(cell: Cell, study: Study, temporary: Path) -> None:
    refused: UserError | ValueError | None = None
    for number, values in enumerate(variants(cell)):
        if number == VARIANTS:
            return
        try:
            built = build(cell, study, temporary, values)
            work = work_of(built)
            if work.selection_passes:
                return
            batches = limited(len(built.data.train_dataloader()), built.trainer.limit_train_batches)
            raise UserError(
                f"a search compares trials on the selection rows, but training ends after {work.steps} steps, before "
                f"the first scoring, and an epoch has {batches} batches: raise trainer.max_steps, or lower "
                "trainer.val_check_interval"
            )
        except (UserError, ValueError) as error:
            refused = refused or error
    if refused is not None:
        raise refused


def refusal(cell: Cell, study: Study, values: Mapping[str, Any]) -> str:
    """Return why a cell cannot be built with values of its searched settings; empty if it can."""
    examples = {parameter.key: parameter.example for parameter in cell.parameters}
    with tempfile.TemporaryDirectory() as temporary, _silence(), process_cache():
        try:
            build(cell, study, Path(temporary), {**examples, **values})
        except (UserError, ValueError) as error:
            return one_line(error)
    return ""


def _each(cells: Iterable[Any], function: Callable[[Any], Any]) -> list[Any]:
    """Apply a function to all cells; report all cells for which it fails in one message."""
    results, refused = [], []
    for cell in cells:
        try:
            results.append(function(cell))
        except (UserError, ValueError, torch.OutOfMemoryError) as error:
            name = cell.name if isinstance(cell, Cell) else cell.cell.name
            refused.append((name, error))
    if refused:
        name, first = refused[0]
        others = f"; {len(refused) - 1} other cells cannot be run either" if len(refused) > 1 else ""
        others = others.replace("1 other cells", "1 other cell")
        raise UserError(f"cell {name} cannot be run: {one_line(first).rstrip('.')}{others}") from first
    return results


# -------------------------------------------------------------------------------------------------------------- timing


def time_cell(built: BuiltCell) -> Timing:
    """Time a cell: the start up to its first batch, its steps, and the scoring of its rows.

    The first step and the first batch of each scoring warm up and are not timed. The timed steps are the first steps of
    the run. The time of a step is scaled to the mean number of tokens of all steps.

    Raises:
        UserError: The run has no training rows and no report rows.
    """
    module, data, trainer = built.module, built.data, built.trainer
    if module.backbone_config.quantization is None:  # workers cache the backbone, so reading it is not part of a run
        load_model(module.backbone_config, module.location)
    probe = Probe(trainer.limit_val_batches, trainer.limit_test_batches)
    trainer.callbacks.append(probe)  # type: ignore[attr-defined]
    trainer.limit_val_batches = 0  # the probe scores those rows
    module.is_rehearsal = True
    began = time.monotonic()
    with contextlib.suppress(ProbeFinished):
        if module.frozen:
            trainer.test(module, datamodule=data, weights_only=True, verbose=False)
        else:
            trainer.fit(module, datamodule=data, weights_only=True)
    if probe.begun is None:
        raise UserError("there is nothing to run: the cell has no training row and no report row")
    selection, report = probe.selection, probe.report
    step = 0.0 if module.frozen else probe.step_seconds * _mean_tokens(built) / probe.step_tokens
    metric = built.cell.report_metric
    cache = module.teacher_cache
    taught = None if cache is None else cache.rehearsal
    loaded = 0.0 if taught is None else taught.load_seconds
    return Timing(
        start=built.seconds + probe.begun - began - loaded,
        step=step if probe.total_steps else 0.0,
        selection_pass=selection.seconds if selection else 0.0,
        report_pass=report.seconds if report else 0.0,
        steps=len(probe.steps[WARM_UP:] or probe.steps),
        accuracy=report.metrics.get(metric) if report and metric in ACCURACIES else None,
        scored=report.scored if report else 0,
        cache="" if cache is None else str(cache.files.folder),
        teacher=0.0 if taught is None else loaded + probe.teacher_seconds / probe.step_tokens * taught.tokens,
    )


def _mean_tokens(built: BuiltCell) -> float:
    """Return the mean tokens of a step over an epoch."""
    loader = built.data.train_dataloader()
    tokens: int = loader.order.identity()["num_tokens"]
    return tokens / math.ceil(len(loader) / built.trainer.accumulate_grad_batches)


# ----------------------------------------------------------------------------------------------------- surroundings


@contextlib.contextmanager
def _threads_of(workers: int) -> Iterator[None]:
    """Use one worker's share of the threads."""
    before, share = torch.get_num_threads(), environment_of(0, workers).get(THREADS[0])
    if share is not None:
        torch.set_num_threads(int(share))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide messages about devices and seeds, since no run follows."""
    prepare_process()
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
