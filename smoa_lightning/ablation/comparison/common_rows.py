"""The report rows that all sides share, and why some runs cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smoa_lightning.ablation.comparison.scored_run import ReportedTask, ScoredRun
from smoa_lightning.ablation.comparison.sides import Side
from smoa_lightning.common.errors import UserError


@dataclass(frozen=True)
class CommonRows:
    """The rows that all sides were scored on.

    Attributes:
        rows: Task -> its rows, ascending.
        complete: Whether no side was scored on further rows.
        sentence: What the comparison leaves out; empty if it is complete.
    """

    rows: dict[str, tuple[int, ...]]
    complete: bool
    sentence: str

    @property
    def number(self) -> int:
        """The number of rows of all tasks."""
        return sum(map(len, self.rows.values()))


def common_rows(sides: Sequence[Side]) -> CommonRows:
    """Return the rows that all sides share.

    Raises:
        UserError: The sides report on different tasks or on different rows, or share no row.
    """
    runs = [run for side in sides for run in side.runs]
    for run in runs[1:]:
        _check_tasks(runs[0], run)
    shared = set(runs[0].items).intersection(*(run.items for run in runs[1:]))
    rows = {task: tuple(sorted(row for name, row in shared if name == task)) for task in runs[0].tasks}
    if empty := next((task for task, own in rows.items() if not own), None):
        raise UserError(
            f"the runs share no report row of task {empty!r}: score them with the same data.limit_report_rows"
        )
    sizes = [len(run.items) for run in runs]
    complete = max(sizes) == len(shared)
    sentence = ""
    if not complete:
        these = (
            "the only row that all of them share"
            if len(shared) == 1
            else (f"the {len(shared):,} rows that all of them share")
        )
        sentence = (
            f"The runs were scored on different numbers of rows ({min(sizes):,} to {max(sizes):,}) of the same split. "
            f"All numbers are for {these}."
        )
    return CommonRows(rows, complete, sentence)


def _check_tasks(first: ScoredRun, other: ScoredRun) -> None:
    if first.tasks.keys() != other.tasks.keys():
        names = [", ".join(run.tasks) for run in (first, other)]
        raise UserError(
            f"{first.folder} reports on {names[0]} and {other.folder} on {names[1]}: runs of different tasks cannot be "
            "compared"
        )
    for name, one in first.tasks.items():
        reason = _difference(one, other.tasks[name])
        if reason:
            raise UserError(f"{first.folder} and {other.folder} cannot be compared: {reason}")


def _difference(one: ReportedTask, two: ReportedTask) -> str:
    """Return why scores of a task cannot be compared; empty if they can."""
    task = f"task {one.name!r}"
    if one.version != two.version:
        return f"{task} has the version {one.version} in one and {two.version} in the other"
    if one.protocol != two.protocol:
        return f"{task} is scored by {one.protocol} in one and by {two.protocol} in the other"
    if one.split != two.split:
        return f"{task} is reported on the rows of {one.split} in one and of {two.split} in the other"
    if one.digest is None or two.digest is None:
        return f"the record of one has no digest of the {one.split} rows of {task}, so they may be different rows"
    if one.digest != two.digest:
        return (
            f"the {one.split} rows of {task} are different rows (SHA-256 {one.digest[:12]} from {one.source}, "
            f"{two.digest[:12]} from {two.source})"
        )
    return ""
