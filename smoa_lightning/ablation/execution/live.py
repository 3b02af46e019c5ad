"""Display of a running study: a table in a terminal, lines in other outputs."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from smoa_lightning.ablation.execution.durations import clock, remaining_seconds
from smoa_lightning.ablation.execution.status import CellStatus, StudyStatus

ROWS = 40  # most rows of the table; running cells come first


class Display:
    """The state of a study, shown until the end of the ``with`` block.

    Args:
        status: Status of the study.
        folder: The study folder.
        console: Output of the display.
    """

    def __init__(self, status: StudyStatus, folder: Path, console: Console | None = None) -> None:
        self.status, self.folder = status, folder
        self.console = console or Console()
        self.began = time.monotonic()
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._shown: dict[str, tuple[int, int]] = {}
        self._failed: set[str] = set()

    def __enter__(self) -> Display:
        study, cells = self.status.study, self.status.cells()
        planned = sum(cell.planned for cell in cells)
        self._say(
            f"study {study.name}: {len(cells)} cells, {planned} runs and trials, {sum(c.done for c in cells)} done; "
            f"{self.folder}"
        )
        self._shown = {cell.cell: (cell.done, cell.failed) for cell in cells}
        if self.live is not None:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.__exit__(kind, error, trace)

    def refresh(self) -> None:
        """Show the current state."""
        cells = self.status.cells()
        if sum(cell.failed for cell in cells) > len(self._failed):
            for failure in self.status.failures():
                if failure.run not in self._failed:
                    self._failed.add(failure.run)
                    self._say(f"{failure.run} failed: {failure.reason}")
        if self.live is not None:
            self.live.update(Group(table(cells, self._better()), Text(self._line(cells))), refresh=True)
            return
        for cell in cells:
            if (now := (cell.done, cell.failed)) != self._shown.get(cell.cell):
                self._shown[cell.cell] = now
                failed = f", {cell.failed} failed" if cell.failed else ""
                score = f", {interval(cell.values)}" if cell.values else ""
                self._say(f"{cell.cell}: {cell.done} of {cell.planned} done{failed}{score}")
                self._say(f"  {self._line(cells)}")

    def _say(self, text: str) -> None:
        """Print a line unchanged: not cut at the width of the output, and without rich's markup."""
        self.console.print(Text(text), soft_wrap=True)

    def _better(self) -> str:
        return str(self.status.study.objective.direction)

    def _line(self, cells: list[CellStatus]) -> str:
        done, planned = sum(cell.done for cell in cells), sum(cell.planned for cell in cells)
        failed, running = sum(cell.failed for cell in cells), sum(len(cell.running) for cell in cells)
        left = time_left(cells)
        parts = [f"{done} of {planned} done", f"{running} running"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{clock(time.monotonic() - self.began)} so far"]
        parts += [f"about {clock(left)} left"] if left is not None and done < planned else []
        return ", ".join(parts)


def table(cells: list[CellStatus], direction: str) -> Table:
    """Return the cells as a table: first running cells, then cells that are not done."""
    order = sorted(cells, key=lambda cell: (not cell.running, cell.done + cell.failed >= cell.planned))
    means = {cell.cell: statistics.fmean(cell.values) for cell in cells if cell.values}
    best = (max if direction == "maximize" else min)(means, key=lambda name: means[name], default=None)
    shown = Table(box=None, pad_edge=False)
    for heading in ("cell", "done", "state", "score (95 % over seeds)", "seconds a run"):
        shown.add_column(heading, justify="left" if heading in ("cell", "state") else "right")
    for cell in order[:ROWS]:
        state = f"running {len(cell.running)}" if cell.running else "done" if cell.done == cell.planned else "open"
        state += f", {cell.failed} failed" if cell.failed else ""
        mark = " *" if cell.cell == best else ""
        seconds = f"{statistics.median(cell.seconds):.0f}" if cell.seconds else ""
        shown.add_row(Text(cell.cell), f"{cell.done}/{cell.planned}", state, interval(cell.values) + mark, seconds)
    if len(order) > ROWS:
        shown.add_row(f"... and {len(order) - ROWS} more", "", "", "", "")
    return shown


def interval(values: tuple[float, ...]) -> str:
    """Return mean and 95 % interval over seeds, in brackets: ± is a standard error everywhere in this package.

    >>> interval((0.5,)), interval((0.5, 0.7))
    ('0.500 (1 seed)', '0.600 [-0.671, 1.871] (2 seeds)')
    """
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f} (1 seed)"
    from smoa_lightning.ablation.statistics import mean_interval  # it needs scipy, and the workers start without it

    estimate = mean_interval(values)
    if estimate.low is None or estimate.high is None:  # equal scores have no interval
        return f"{estimate.value:.3f} ({len(values)} seeds)"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] ({len(values)} seeds)"


def time_left(cells: list[CellStatus]) -> float | None:
    """Return the remaining seconds with the current number of workers; ``None`` before the first run is done."""
    left = {cell.cell: max(0, cell.planned - cell.done - cell.failed) for cell in cells}
    return remaining_seconds({c.cell: c.seconds for c in cells}, left, sum(len(c.running) for c in cells))
