"""The cost of a cell of a study as numbers: steps and scorings of a run, seconds, and remaining runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median

from smoa_lightning.ablation.planning.finished_runs import FinishedRuns
from smoa_lightning.ablation.planning.variation import Variation
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.ablation.study.base_model import base_seeds, scored_with
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.records.metric_table import ACCURACIES


@dataclass(frozen=True)
class Timing:
    """Measured times of a cell, in seconds.

    Attributes:
        start: From the command line to the first batch, with the backbone already in memory.
        step: One optimizer step with all its micro-batches.
        selection_pass: One scoring of the selection rows, with the measurement of ranks.
        report_pass: One scoring of the report rows, with the scoring of the general text.
        steps: Number of timed optimizer steps.
        accuracy: Report metric on the rows scored for the timing; ``None`` if it is not an accuracy.
        scored: Number of report rows scored for the timing.
        cache: Folder of the distributions of the teacher; empty without one.
        teacher: The teacher's pass over the training rows that this folder lacks, with the reading of its weights.
    """

    start: float
    step: float
    selection_pass: float
    report_pass: float
    steps: int
    accuracy: float | None = None
    scored: int = 0
    cache: str = ""
    teacher: float = 0.0


@dataclass(frozen=True)
class Work:
    """The amount of work of one run of a cell.

    Attributes:
        steps: Optimizer steps.
        selection_passes: How often the selection rows are scored.
        selection_rows: Number of selection rows.
        report_rows: Number of report rows.
    """

    steps: int
    selection_passes: int
    selection_rows: int
    report_rows: int


@dataclass(frozen=True)
class CellCost:
    """The cost of a cell and its remaining runs.

    Attributes:
        cell: Name of the cell.
        parameters: Trainable parameters; with a search over the adapter's size, those of its first values.
        total: Parameters of the backbone.
        work: Work of one final run.
        timing: Measured times; ``None`` if finished runs give all times.
        final_seconds: Seconds of a final run.
        search_seconds: Seconds of a search run, 0 without a search.
        base_seconds: Seconds of all scorings of the base model; 0 if this cell does not score it.
        teacher_seconds: Seconds of the teacher's pass; 0 if its cache is complete, or another cell fills it.
        final_done: Number of finished final runs.
        search_done: Number of finished or pruned search runs.
        final_left: Number of remaining final runs.
        search_left: Number of remaining search runs.
        source: Source of ``final_seconds`` and ``search_seconds``.
        accuracy: Expected accuracy; ``None`` if the metric is not an accuracy.
        accuracy_source: Source of ``accuracy``.
        variation: How scores vary in this study.
        workers: Number of planned worker processes.
        threads: Number of threads of the timing: those of one worker.
    """

    cell: str
    parameters: int
    total: int
    work: Work
    timing: Timing | None
    final_seconds: float
    search_seconds: float
    base_seconds: float
    teacher_seconds: float
    final_done: int
    search_done: int
    final_left: int
    search_left: int
    source: str
    accuracy: float | None
    accuracy_source: str
    variation: Variation
    workers: int
    threads: int

    @property
    def seconds_left(self) -> float:
        """Seconds that one worker needs for the remaining runs of the cell."""
        return (
            self.final_left * self.final_seconds
            + self.search_left * self.search_seconds
            + (self.base_seconds if self.final_left else 0.0)
            + (self.teacher_seconds if self.final_left + self.search_left else 0.0)
        )


def run_seconds(timing: Timing, work: Work, report: bool) -> float:
    """Return the seconds of a run: start + steps x step + selection passes x pass + one pass over the report rows.

    >>> run_seconds(Timing(2.0, 0.5, 3.0, 7.0, 3), Work(100, 4, 64, 200), report=True)
    71.0
    """
    seconds = timing.start + work.steps * timing.step + work.selection_passes * timing.selection_pass
    return seconds + (timing.report_pass if report else 0.0)


def selection_passes(steps: int, batches: int, accumulate: int, check_batch: float, every_n_epochs: int | None) -> int:
    """Return how often Lightning scores the selection rows.

    Args:
        steps: Optimizer steps of the run.
        batches: Micro-batches of an epoch.
        accumulate: Micro-batches of a step; the last step of an epoch may have fewer.
        check_batch: Micro-batches between two validations; ``inf`` for validation at the end of an epoch.
        every_n_epochs: Only every n-th epoch has validations; with ``None`` micro-batches are counted across epochs.

    >>> selection_passes(steps=12, batches=10, accumulate=2, check_batch=5, every_n_epochs=1)  # 2 epochs and 4 batches
    4
    """
    epochs, rest = divmod(steps, math.ceil(batches / accumulate))
    left = rest * accumulate  # micro-batches of a last epoch that max_steps ends early
    if every_n_epochs is None:
        return int((epochs * batches + left) // check_batch)
    if math.isinf(check_batch):
        return epochs // every_n_epochs
    last = int(left // check_batch) if (epochs + 1) % every_n_epochs == 0 else 0
    return epochs // every_n_epochs * int(batches // check_batch) + last


@dataclass(frozen=True)
class RemainingRuns:
    """The runs of a cell that are not finished.

    Attributes:
        final: Number of final runs.
        search: Number of search runs.
        needs_timing: Whether runs of a kind remain, and no run of this kind is finished.
    """

    final: int
    search: int
    needs_timing: bool

    @classmethod
    def of(cls, study: Study, done: FinishedRuns) -> RemainingRuns:
        """Count the remaining runs of a cell."""
        final = len(study.seeds) - len(done.final)
        search = max(0, study.search.trials * len(study.search.seeds) - done.search) if study.search else 0
        unseen = (final > 0 and not done.seconds) or (search > 0 and not done.search_seconds)
        return cls(final, search, unseen)


@dataclass(frozen=True)
class CellSize:
    """The size of a cell, and the threads and workers of its timing.

    Attributes:
        parameters: Trainable parameters.
        total: Parameters of the backbone.
        threads: Number of threads of the timing.
        workers: Number of planned worker processes.
    """

    parameters: int
    total: int
    threads: int
    workers: int


def cost_of(
    study: Study, cell: Cell, done: FinishedRuns, work: Work, timing: Timing | None, varies: Variation, size: CellSize
) -> CellCost:
    """Return the cost of a cell and its remaining runs, from its finished runs if it has any, else from its timing."""
    left = RemainingRuns.of(study, done)

    def seconds(measured: list[float], report: bool) -> float:
        if measured:
            return median(measured)
        return run_seconds(timing, work, report) if timing is not None else 0.0

    scored = base_seeds(study, cell) if cell.name in scored_with(study).values() and work.steps > 0 else ()
    base_due = sum(seed not in done.final for seed in scored)
    accuracy, source = None, ""
    if cell.report_metric in ACCURACIES and done.scores:
        accuracy, source = fmean(done.scores.values()), f"mean of {counted(len(done.scores), 'finished run')}"
    elif timing is not None and timing.accuracy is not None:
        source = f"on the {timing.scored} report rows scored for the timing, with an almost untrained model"
        accuracy = timing.accuracy
    return CellCost(
        cell=cell.name,
        parameters=size.parameters,
        total=size.total,
        work=work,
        timing=timing,
        final_seconds=seconds(done.seconds, report=True),
        search_seconds=seconds(done.search_seconds, report=False) if study.search else 0.0,
        base_seconds=timing.report_pass * base_due if timing is not None else 0.0,
        teacher_seconds=timing.teacher if timing is not None else 0.0,
        final_done=len(done.final),
        search_done=done.search,
        final_left=left.final,
        search_left=left.search,
        source=_source(done, timing, study.search is not None),
        accuracy=accuracy,
        accuracy_source=source,
        variation=varies,
        workers=size.workers,
        threads=size.threads,
    )


def _source(done: FinishedRuns, timing: Timing | None, searched: bool) -> str:
    """Return the source of the seconds of final and search runs."""

    def source_of(measured: list[float]) -> str:
        timed = counted(timing.steps, "timed step") if timing is not None else "not needed"
        return f"median of {counted(len(measured), 'run')}" if measured else timed

    final, search = source_of(done.seconds), source_of(done.search_seconds)
    return final if not searched or final == search else f"final: {final}; search: {search}"
