"""What a cell of a study costs, as numbers: steps and scorings of a run, seconds, and what is left to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median

from smoa_lightning.ablation.planning.finished_runs import Finished, Variation
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.ablation.study.base_model import scored_with
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.records.metric_table import ACCURACIES


@dataclass(frozen=True)
class Timing:
    """What was timed of a cell; seconds.

    Attributes:
        start: From the command line to the first batch, with the backbone already in memory.
        step: One optimizer step, all its micro-batches.
        selection_pass: One scoring of the selection rows, and the ranks that are measured with it.
        report_pass: One scoring of the report rows, and the general text that is read with it.
        steps: Optimizer steps that were timed.
        accuracy: Value of the report metric on the rows that were scored for the timing, if it is an accuracy.
        scored: How many report rows that were.
    """

    start: float
    step: float
    selection_pass: float
    report_pass: float
    steps: int
    accuracy: float | None = None
    scored: int = 0


@dataclass(frozen=True)
class Work:
    """What a run of a cell does.

    Attributes:
        steps: Optimizer steps.
        selection_passes: How often the selection rows are scored.
        selection_rows: How many rows that are.
        report_rows: How many rows are reported on.
    """

    steps: int
    selection_passes: int
    selection_rows: int
    report_rows: int


@dataclass(frozen=True)
class CellCost:
    """What a cell costs, and what is left of it.

    Attributes:
        cell: Its name.
        parameters: Trainable parameters; of a search that goes over the adapter's size, those of its first values.
        total: Parameters of the backbone.
        work: What one of its final runs does.
        timing: What was timed; ``None`` where finished runs say all that is needed.
        final_seconds: Seconds of a final run.
        search_seconds: Seconds of a search run, 0 without a search.
        base_seconds: Seconds for scoring the untouched backbone, once; 0 where that is not due.
        final_done: Final runs that are finished.
        search_done: Search runs that are finished or were pruned.
        final_left: Final runs that are not.
        search_left: Search runs that are not.
        source: Where ``final_seconds`` and ``search_seconds`` are from.
        accuracy: Accuracy that is expected, ``None`` for another kind of metric.
        accuracy_source: Where that is from.
        variation: How accuracies vary in this study.
        workers: Worker processes that are planned.
        threads: Threads that the timing ran with: those of one of so many workers.
    """

    cell: str
    parameters: int
    total: int
    work: Work
    timing: Timing | None
    final_seconds: float
    search_seconds: float
    base_seconds: float
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
        """Seconds of one worker for all that is left of the cell."""
        return (
            self.final_left * self.final_seconds
            + self.search_left * self.search_seconds
            + (self.base_seconds if self.final_left else 0.0)
        )


def run_seconds(timing: Timing, work: Work, report: bool) -> float:
    """Return the seconds of a run: start + steps x step + selection passes x pass, and one pass over the report rows.

    >>> run_seconds(Timing(2.0, 0.5, 3.0, 7.0, 3), Work(100, 4, 64, 200), report=True)
    71.0
    """
    seconds = timing.start + work.steps * timing.step + work.selection_passes * timing.selection_pass
    return seconds + (timing.report_pass if report else 0.0)


def selection_passes(steps: int, batches: int, accumulate: int, check_batch: float, every_n_epochs: int | None) -> int:
    """Return how often Lightning goes through the selection rows.

    Args:
        steps: Optimizer steps of the run.
        batches: Micro-batches of an epoch.
        accumulate: Micro-batches of a step; the last step of an epoch may have fewer.
        check_batch: Micro-batches between two validations, ``inf`` for the ends of epochs.
        every_n_epochs: Epochs with validations are every n-th; ``None``: micro-batches are counted over epochs.

    >>> selection_passes(steps=12, batches=10, accumulate=2, check_batch=5, every_n_epochs=1)  # 2 epochs and 4 batches
    4
    """
    epochs, rest = divmod(steps, math.ceil(batches / accumulate))
    left = rest * accumulate  # micro-batches of an epoch that max_steps cuts off
    if every_n_epochs is None:
        return int((epochs * batches + left) // check_batch)
    if math.isinf(check_batch):
        return epochs // every_n_epochs
    last = int(left // check_batch) if (epochs + 1) % every_n_epochs == 0 else 0
    return epochs // every_n_epochs * int(batches // check_batch) + last


@dataclass(frozen=True)
class Left:
    """What is left of a cell.

    Attributes:
        final: Final runs.
        search: Search runs.
        needs_timing: Whether there is something left of a kind of which nothing has been seen.
    """

    final: int
    search: int
    needs_timing: bool

    @classmethod
    def of(cls, study: Study, done: Finished) -> Left:
        """Count what is left."""
        final = len(study.seeds) - len(done.final)
        search = max(0, study.search.trials * len(study.search.seeds) - done.search) if study.search else 0
        unseen = (final > 0 and not done.seconds) or (search > 0 and not done.search_seconds)
        return cls(final, search, unseen)


@dataclass(frozen=True)
class Size:
    """How large a cell is, and where it was timed.

    Attributes:
        parameters: Trainable parameters.
        total: Parameters of the backbone.
        threads: Threads of the timing.
        workers: Worker processes that are planned.
    """

    parameters: int
    total: int
    threads: int
    workers: int


def cost_of(
    study: Study, cell: Cell, done: Finished, work: Work, timing: Timing | None, varies: Variation, size: Size
) -> CellCost:
    """Return what a cell costs and what is left of it: by its finished runs where it has some, else by its timing."""
    left = Left.of(study, done)

    def seconds(seen: list[float], report: bool) -> float:
        if seen:
            return median(seen)
        return run_seconds(timing, work, report) if timing is not None else 0.0

    base_due = cell.name in scored_with(study).values() and study.seeds[0] not in done.final and work.steps > 0
    accuracy, source = None, ""
    if cell.report_metric in ACCURACIES and done.scores:
        accuracy, source = fmean(done.scores.values()), f"mean of {counted(len(done.scores), 'finished run')}"
    elif timing is not None and timing.accuracy is not None:
        accuracy, source = timing.accuracy, f"on the {timing.scored} report rows scored for the timing, hardly trained"
    return CellCost(
        cell=cell.name,
        parameters=size.parameters,
        total=size.total,
        work=work,
        timing=timing,
        final_seconds=seconds(done.seconds, report=True),
        search_seconds=seconds(done.search_seconds, report=False) if study.search else 0.0,
        base_seconds=timing.report_pass if timing is not None and base_due else 0.0,
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


def _source(done: Finished, timing: Timing | None, searched: bool) -> str:
    """Say where the seconds of final and search runs are from."""

    def one(seen: list[float]) -> str:
        timed = counted(timing.steps, "timed step") if timing is not None else "not needed"
        return f"median of {counted(len(seen), 'run')}" if seen else timed

    final, search = one(done.seconds), one(done.search_seconds)
    return final if not searched or final == search else f"final: {final}; search: {search}"
