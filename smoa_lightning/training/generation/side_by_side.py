"""Replies to the same prompts next to each other."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def side_by_side(labels: Sequence[str], texts: Sequence[str], width: int | None = None) -> str:
    """Return texts in columns of the same width, as wide as the terminal; a file or pipe has 80 characters.

    >>> print(side_by_side(["run", "base"], ["a b", "c"], width=12))
    run   base
    ────  ────
    a b   c
    """
    width = width or shutil.get_terminal_size().columns
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="", expand=True)
    for label in labels:
        table.add_column(Text(label), ratio=1, overflow="fold")
    table.add_row(*["─" * max(4, min(len(label), width // 2 - 2)) for label in labels])
    table.add_row(*map(Text, texts))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as output:
        console.print(table)
    return "\n".join(line.rstrip() for line in output.get().splitlines())
