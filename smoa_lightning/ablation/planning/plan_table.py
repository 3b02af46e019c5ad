"""The plan of a study as text: cells, runs, parameters, times, and the smallest detectable difference."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from smoa_lightning.ablation.execution.durations import clock
from smoa_lightning.ablation.planning.cell_cost import CellCost, run_seconds
from smoa_lightning.ablation.planning.detectable import detectable_lines
from smoa_lightning.ablation.planning.plan import Plan
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.ablation.study.sizes import different_sizes

WIDTH = 140  # of text that is not printed to a terminal
DROPPED = 10  # most dropped combinations that are listed


def render(plan: Plan, costs: Sequence[CellCost], width: int | None = None) -> str:
    """Return the plan of a study as plain text.

    Args:
        plan: The plan.
        costs: Cost of each cell, from ``estimate.measure``.
        width: Columns; by default those of the terminal.
    """
    columns = width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH)
    out = io.StringIO()
    console = Console(file=out, width=columns, no_color=True, highlight=False, markup=False, emoji=False)
    for line in _head(plan, costs):
        console.print(line)
    console.print()
    console.print(_table(plan, costs))
    console.print()
    for line in (*_times(plan, costs), *_sizes(plan, costs), *detectable_lines(plan, costs)):
        console.print(f"* {line}")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _head(plan: Plan, costs: Sequence[CellCost]) -> Iterator[str]:
    text = f"study {plan.study}: {counted(len(plan.rows), 'cell')} x {counted(len(plan.seeds), 'seed')}"
    text += f" = {counted(plan.final_runs, 'final run')}"
    if plan.search_runs:
        seeds = counted(len(plan.search_seeds), "seed")
        text += f", after {plan.trials} trials x {seeds} for each cell = {counted(plan.search_runs, 'search run')}"
        if plan.beyond:
            text += f" (and up to {counted(plan.beyond, 'trial')} more for a cell with its best value at an end)"
    yield f"{text}; {sum(c.final_done + c.search_done for c in costs)} done"
    if plan.budget is not None:
        yield f"budget: {plan.budget} trainable parameters in every cell"
    if plan.dropped:
        more = f", and {len(plan.dropped) - DROPPED} more" if len(plan.dropped) > DROPPED else ""
        count = counted(len(plan.dropped), "combination")
        yield f"{count} dropped by the conditions: {'; '.join(plan.dropped[:DROPPED])}{more}"


def _table(plan: Plan, costs: Sequence[CellCost]) -> Table:
    baselines = {row.baseline for row in plan.rows}
    table = Table(box=None, pad_edge=False)
    table.add_column("cell", overflow="fold")
    for heading in ("parameters", "share", "runs", "metric", "steps", "s/run", "left"):
        table.add_column(heading, justify="left" if heading == "metric" else "right", no_wrap=True)
    table.add_column("measured by")
    for row, cost in zip(plan.rows, costs, strict=True):
        done = cost.final_done + cost.search_done
        seconds = f"{cost.final_seconds:.1f}"
        if row.search_runs:
            seconds += f" / {cost.search_seconds:.1f}"
        table.add_row(
            row.cell + (" (baseline)" if row.cell in baselines else ""),
            f"{cost.parameters:,}",
            f"{cost.parameters / cost.total:.2%}",
            f"{row.final_runs + row.search_runs - done}" + (f" + {done} done" if done else ""),
            row.metric,
            f"{cost.work.steps:,}",
            seconds,
            clock(cost.seconds_left),
            cost.source,
        )
    return table


def _sizes(plan: Plan, costs: Sequence[CellCost]) -> Iterator[str]:
    """Yield a line for each baseline whose cells, those that train something, have different sizes."""
    for baseline in dict.fromkeys(row.baseline for row in plan.rows):
        cells = [cost for row, cost in zip(plan.rows, costs, strict=True) if row.baseline == baseline]
        if sentence := different_sizes({cost.cell: cost.parameters for cost in cells}):
            yield sentence


def _times(plan: Plan, costs: Sequence[CellCost]) -> Iterator[str]:
    workers, threads = costs[0].workers, costs[0].threads
    total = sum(cost.seconds_left for cost in costs)
    text = f"time left: about {clock(total / workers)} with {counted(workers, 'worker')}"
    if workers > 1:
        text += f" ({clock(total)} of one worker, divided by {workers}; workers on one machine also share memory and "
        text += "caches, which is not measured, so expect more)"
    yield f"{text}; timed with {counted(threads, 'thread')}"
    searching = sum(cost.search_seconds for cost in costs if cost.search_left or cost.final_left)
    if more := plan.beyond * len(plan.search_seeds) * searching / workers:
        yield f"trials beyond the ends of the ranges are not counted: about {clock(more)} if all cells need all of them"
    yield (
        "parameters: trainable parameters, and their share of the backbone's parameters; every cell was built with its "
        "adapter, so every cell can be built"
    )
    if any(row.searched for row in plan.rows):
        yield (
            "search: parameters and times are those of the first value of each searched setting; s/run is that of a "
            "final run / of a search run; pruned trials end earlier"
        )
    timed = [(cost.cell, cost.work, cost.timing) for cost in costs if cost.timing is not None]
    if timed:
        yield (
            "timing: s/run = start + steps x one step + scorings of the selection rows + one scoring of the report "
            "rows; writing checkpoints and logs is not included, and replies are those of an almost untrained model"
        )
        first, work, t = timed[0]
        yield (
            f"for example {first}: {t.start:.1f} s + {work.steps:,} x {t.step:.3f} s + {work.selection_passes}"
            f" x {t.selection_pass:.2f} s ({work.selection_rows:,} rows) + {t.report_pass:.1f} s "
            f"({work.report_rows:,} rows) = {run_seconds(t, work, report=True):.1f} s"
        )
    base = sum(cost.base_seconds for cost in costs if cost.final_left)
    if base:
        yield f"the base model is scored once for each baseline: {clock(base)} of the time left"
    if teacher := sum(cost.teacher_seconds for cost in costs if cost.final_left + cost.search_left):
        yield f"a teacher computes the rows that its cache lacks, once for a cache: {clock(teacher)} of the time left"
    if any("median" in cost.source for cost in costs):
        yield "median of runs: the remaining runs of a cell are expected to take the median of its finished runs"
