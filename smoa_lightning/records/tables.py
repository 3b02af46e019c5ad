"""Tables for the terminal: metrics with their standard errors, and a summary of a run's data."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from smoa_lightning.records.metric_table import COUNT, METRICS

SHOWN = 20  # ignored columns that are named
WIDEST = 10_000  # width that rich formats for, in characters: wider than any table


@dataclass(frozen=True)
class Line:
    """A line of a result table.

    Args:
        label: What was scored: ``base model``, ``after training``.
        task: Name of the task.
        protocol: ``likelihood`` or ``generation``.
        source: Source of the rows.
        primary: Name of the primary metric.
        metrics: Metric -> value, ``<metric>_stderr`` -> its standard error, ``num_items``.
    """

    label: str
    task: str
    protocol: str
    source: str
    primary: str
    metrics: Mapping[str, float]


def result_lines(label: str, metrics: Mapping[str, float], prefix: str, facts: Mapping[str, Any]) -> list[Line]:
    """Return a line for each task of a pass; with several tasks, the first line holds their means.

    Args:
        label: What was scored.
        metrics: All metrics, under ``<prefix>/<metric>`` and ``<prefix>/<task>/<metric>``.
        prefix: ``base``, ``report`` or ``selection``.
        facts: ``name``, ``source`` and ``primary`` of all tasks; ``tasks``: task -> (protocol, primary).
    """
    own = {name.removeprefix(f"{prefix}/"): v for name, v in metrics.items() if name.startswith(f"{prefix}/")}
    plain = {name: value for name, value in own.items() if "/" not in name}
    if not plain:
        return []
    tasks = facts["tasks"]
    if len(tasks) == 1:
        ((protocol, primary),) = tasks.values()
        return [Line(label, facts["name"], protocol, facts["source"], primary, plain)]
    lines = [Line(label, f"mean of {len(tasks)}", "", facts["source"], facts["primary"], plain)]
    for name, (protocol, primary) in tasks.items():
        parts = {n.removeprefix(f"{name}/"): v for n, v in own.items() if n.startswith(f"{name}/")}
        lines.append(Line(label, name, protocol, facts["source"], primary, parts))
    return lines


def result_table(lines: Sequence[Line], bold: bool | None = None) -> str:
    """Return the lines as a table: task, n, each metric with its standard error, the primary metric in bold.

    Args:
        lines: The lines.
        bold: True marks the primary metric in bold, False with an asterisk. None is True if the output is a terminal.
    """
    bold = sys.stdout.isatty() if bold is None else bold
    names = {name for line in lines for name in line.metrics if not name.endswith("_stderr") and name != COUNT}
    columns = [name for name, metric in METRICS.items() if name in names and metric.in_tables]
    columns += sorted(names - METRICS.keys())
    rows = []
    for line in lines:
        values = [(_value(line.metrics, name), name == line.primary) for name in columns]
        marked = [text if not main else Text.assemble((text, "bold")) if bold else f"*{text}*" for text, main in values]
        facts = [line.label, line.task, line.protocol, line.source, f"{line.metrics.get(COUNT, 0):,.0f}"]
        rows.append([*facts, *marked])
    return text_table(["", "task", "protocol", "rows from", "n", *columns], rows, words=4, terminal=bold)


def legend(bold: bool | None = None) -> str:
    """Return the line that explains the marks of a result table; ``bold`` as there."""
    bold = sys.stdout.isatty() if bold is None else bold
    mark = "bold" if bold else "*...*"
    return f"{mark}: the primary metric of the task; ±: one standard error over the items or their groups"


def _value(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return "-"
    error = metrics.get(f"{name}_stderr")
    digits = 4 if abs(metrics[name]) < 2 else 2
    return f"{metrics[name]:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def part_table(summary: Mapping[str, Any]) -> str:
    """Return a table of a data summary: rows, lengths, truncated and skipped rows of each part; and ignored columns."""
    titles, rows = part_rows(summary)
    return "\n".join([text_table(titles, rows, words=1), *_ignored(summary)])


def part_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows of the table of a data summary; that of images has no columns about tokens."""
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "rows": lambda facts: f"{facts['rows']:,}",
        "tokens": lambda facts: f"{facts['tokens']:,}",
        "targets": lambda facts: f"{facts['target_tokens']:,}",
        "mean length": lambda facts: f"{facts['length_mean']:.1f}",
        "median": lambda facts: f"{facts['length_median']:,}",
        "longest": lambda facts: f"{facts['length_max']:,}",
        "truncated": lambda facts: f"{facts['share_truncated']:.1%}",
        "skipped": lambda facts: f"{facts['skipped_overlong']:,}",
        "merged": lambda facts: f"{facts['prefix_mismatches']:,}",
    }
    parts = list(data_parts(summary))
    if parts and all(facts.get("unit") == "images" for _, facts in parts):
        shown = {"images": shown["rows"]}
    rows = [[name, *(text(facts) for text in shown.values())] for name, facts in parts]
    return ["data", *shown], rows


def _ignored(summary: Mapping[str, Any], task: str = "") -> Iterable[str]:
    """Yield lines about the columns that a task does not read, and about rows that break its schema."""
    left_out = [f"{count:,} of {split}" for split, count in summary.get("bad_rows", {}).items() if count]
    if left_out:
        yield f"bad rows{task and f' of {task}'} that were left out: {', '.join(left_out)}"
    if names := summary.get("ignored_columns"):
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield f"ignored columns{task and f' of {task}'}: {', '.join(names[:SHOWN])}{more}"
    for name, facts in summary.items():
        if isinstance(facts, Mapping):
            yield from _ignored(facts, name)


def data_parts(summary: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and facts of each part of the data; the parts of a mixture have the name of their task too.

    Args:
        summary: The summary of the data in a record.
        before: Put before each name.
    """
    for name, facts in summary.items():
        if isinstance(facts, Mapping) and "target_tokens" in facts:
            yield before + name, facts
        elif isinstance(facts, Mapping):
            yield from data_parts(facts, f"{before}{name} ")


def without_markup(markdown: str) -> str:
    """Return Markdown with pipe tables as a text for the terminal: aligned tables, and headings without marks.

    >>> print(without_markup("# Ranks\\n| run | rank |\\n| :-- | --: |\\n| lora | 4.0 |"))
    Ranks
    run   rank
    lora   4.0
    """
    text: list[str] = []
    for is_table, group in itertools.groupby(markdown.splitlines(), key=lambda line: line.startswith("|")):
        if not is_table:
            text += [line.lstrip("#").lstrip() if line.startswith("#") else line for line in group]
            continue
        titles, rule, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in group)
        words = sum(":" not in mark[1:] for mark in " | ".join(rule).split(" | "))
        text.append(text_table(titles, rows, words))
    return "\n".join(text)


def text_table(titles: Sequence[str], rows: Iterable[Sequence[str | Text]], words: int, terminal: bool = False) -> str:
    """Return a table as text, as wide as its content: files and pipes have no width.

    Args:
        titles: Titles of the columns.
        rows: A text for each column.
        words: Number of columns with words, aligned to the left; the other columns hold numbers.
        terminal: Whether styles become terminal codes; otherwise they are left out.
    """
    table = Table(box=None, pad_edge=False, header_style="")
    for number, title in enumerate(titles):
        table.add_column(Text(title), justify="left" if number < words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    colours: Literal["standard"] | None = "standard" if terminal else None
    console = Console(file=io.StringIO(), width=WIDEST, force_terminal=terminal, color_system=colours)
    with console.capture() as output:
        console.print(table)
    return "\n".join(line.rstrip() for line in output.get().splitlines())
