"""What a cell of a study costs, as numbers: steps and scorings of a run, seconds, and what is left to do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Of a pair of cells whose runs nobody has seen yet. One point over seeds is usual for a few thousand training rows, and
# adapters of one backbone agree on most items; the plan names both, so that nobody takes them for measured.
DEFAULT_SEED_SD, DEFAULT_ITEM_CORRELATION = 0.01, 0.5


@dataclass(frozen=True)
class Variation:
    """How accuracies vary: what the smallest detectable difference is computed from.

    Attributes:
        seed_sd: Standard deviation of a cell's accuracy over seeds.
        item_correlation: Correlation of right and wrong between two cells' runs over the items.
        source: Where the two are from.
    """

    seed_sd: float = DEFAULT_SEED_SD
    item_correlation: float = DEFAULT_ITEM_CORRELATION
    source: str = "assumed: this folder has no two cells with two finished seeds yet"


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


def remaining_seconds(durations: Mapping[str, Sequence[float]], left: Mapping[str, int], workers: int) -> float | None:
    """Return the seconds until all is done, ``None`` while no run is.

    A run that is left takes as long as the median of its cell, where that has none yet of all runs.

    Args:
        durations: Cell -> seconds of each of its finished runs.
        left: Cell -> runs that are left.
        workers: Workers that share them.

    >>> remaining_seconds({"a": [10.0, 30.0], "b": []}, {"a": 1, "b": 2}, workers=2)
    30.0
    """
    known = [seconds for each in durations.values() for seconds in each]
    if not any(left.values()):
        return 0.0
    if not known:
        return None
    overall = statistics.median(known)
    own = {cell: statistics.median(each) for cell, each in durations.items() if each}
    return sum(own.get(cell, overall) * runs for cell, runs in left.items()) / max(1, workers)
