"""From what was timed and what is finished to what a cell costs and what is left of it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median

from smoa_lightning.ablation.planning.cell_cost import CellCost, Timing, Variation, Work, run_seconds
from smoa_lightning.ablation.planning.finished_runs import ACCURACIES, Finished
from smoa_lightning.ablation.study.base_model import scored_with
from smoa_lightning.ablation.study.space import Cell, Study


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
        accuracy, source = fmean(done.scores.values()), f"mean of {_count(len(done.scores), 'finished run')}"
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
        timed = _count(timing.steps, "timed step") if timing is not None else "not needed"
        return f"median of {_count(len(seen), 'run')}" if seen else timed

    final, search = one(done.seconds), one(done.search_seconds)
    return final if not searched or final == search else f"final: {final}; search: {search}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
