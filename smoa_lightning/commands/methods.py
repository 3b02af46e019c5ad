"""``methods``: all strategies of the package with equation, parameters, rank bound and source; no torch."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from smoa_lightning.commands.arguments import ArgumentParser
from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.configuration.describe import setting_lines
from smoa_lightning.configuration.methods import Method, methods
from smoa_lightning.configuration.settings import class_group
from smoa_lightning.configuration.shipped_files import full_name
from smoa_lightning.records.tables import text_table

TITLES = {"ours": "Ours", "peft": "From peft", "none": "Without an adapter"}
COLUMNS = ("file", "update", "trainable", "rank ≤", "merge", "budget", "source")
BY_IMPORTANCE = ("file", "trainable", "rank ≤", "merge", "source", "budget", "update")
LINE = 120  # characters of a line in a file or a pipe
WIDE, NARROW_COLUMNS = 120, (0, 2, 3, 4)  # a terminal below this width has no place for the equation
# Fields of every config of peft that are not settings of a method.
BOOKKEEPING = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    "inference_mode",
}
LEGEND = (
    "W is d_out x d_in, N is the larger of the two, n is the width of the hidden states; r, K, q, b and the others "
    "are settings. Parameters are those of one adapted matrix (or slot); 'methods NAME' shows one in full."
)


def main(args: list[str]) -> None:
    """Print all strategies, or one in full.

    Raises:
        UserError: There is no such strategy.
    """
    parser = ArgumentParser(
        prog="python -m smoa_lightning methods",
        description="The strategies of experiments/adapters: equation, trainable parameters, bound of the rank, "
        "whether the update can be merged, which setting a budget chooses, and the source.",
    )
    parser.add_argument("name", nargs="?", help="a strategy to show in full, such as smoa_blocks")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, to the standard output")
    options = parser.parse_args(args)
    known = methods()
    if options.name is None:
        if options.json:
            print(json.dumps([method.facts() for method in known.values()], indent=2, ensure_ascii=False))
        else:
            print_tables()
        return
    name = options.name.removeprefix("experiments/").removeprefix("adapters/").removesuffix(".yaml")
    if name not in known:
        raise UserError(f"there is no strategy {options.name!r}; {the_nearest(_nearest(name, known))}")
    if options.json:
        facts = known[name].facts() | {"settings": known[name].settings, "file": str(known[name].file)}
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print(in_full(known[name]))


def _nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return names of strategies: those that begin with the word first, then the most similar ones.

    >>> _nearest("smoa", ["lora", "soma", "smoa_blocks"], 2)
    'smoa_blocks, soma'
    """
    known = list(known)
    begin = [each for each in known if name and each.casefold().startswith(name.casefold())]
    return ", ".join(list(dict.fromkeys([*begin, *nearest(name, known, count).split(", ")]))[:count])


def print_tables() -> None:
    """Print a table for each group, as wide as the terminal; in files and pipes, one line for each strategy.

    A line of a file or a pipe has the columns that fit into ``LINE`` characters; ``methods NAME`` has the others.
    """
    terminal = sys.stdout.isatty()
    for group, title in TITLES.items():
        rows = [_row(method) for method in methods().values() if method.group == group]
        if terminal:
            left_out = _print_wrapped(title, rows)
        else:
            table, left_out = _narrow(rows)
            print(f"{title}\n{table}")
        if left_out:
            print(f"(too narrow for {', '.join(left_out)}: 'methods NAME' and --json show all)")
        print()
    print("\n".join(textwrap.wrap(LEGEND, shutil.get_terminal_size((120, 24)).columns)))


def _narrow(rows: list[tuple[str, ...]]) -> tuple[str, list[str]]:
    """Return the table with as many of its columns, the most important first, as fit into a line, and the others."""
    kept = [COLUMNS.index(column) for column in BY_IMPORTANCE]
    while True:
        places = sorted(kept)
        titles = tuple(COLUMNS[place] for place in places)
        table = text_table(titles, [tuple(row[place] for place in places) for row in rows], words=len(places))
        if len(kept) == 1 or max(map(len, table.splitlines())) <= LINE:
            return table, [column for column in COLUMNS if column not in titles]
        kept.pop()


def _row(method: Method) -> tuple[str, ...]:
    return method.key, method.update, method.trainable, method.rank, *_short(method), method.source


def _print_wrapped(title: str, rows: list[tuple[str, ...]]) -> list[str]:
    """Print the table as wide as the terminal, and return the columns without a place in it."""
    console = Console(file=sys.stdout, highlight=False)
    shown = range(len(COLUMNS)) if console.width >= WIDE else NARROW_COLUMNS
    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0)
    )
    for number in shown:
        table.add_column(
            COLUMNS[number], no_wrap=number == 0, ratio=None if number in (0, 4) else 2 if number == 1 else 1
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in (row[number] for number in shown)))
    console.print(table)
    return [column for number, column in enumerate(COLUMNS) if number not in shown]


def _short(method: Method) -> tuple[str, str]:
    return "yes" if method.merge else "no", ", ".join(method.budget) or "no"


def in_full(method: Method) -> str:
    """Return all about one strategy: its facts, its file, and the settings of its class."""
    merge, budget = _short(method)
    per = {"matrix": ", for each adapted matrix W (d_out x d_in)", "slot": ", for each adapter slot", "model": ""}[
        method.per
    ]
    lines = [
        f"{method.key}: {method.name} ({method.source})",
        "",
        f"update:        {method.update}",
        f"parameters:    {method.trainable}{per}",
        f"rank at most:  {method.rank}",
        f"merge:         {merge}",
        f"budget:        {budget}",
        f"run it:        python -m smoa_lightning fit --config piqa --config adapters/{method.key}",
        "",
        f"{full_name(method.file)} ({method.file}):",
        *(f"  {line}" for line in method.file.read_text(encoding="utf-8").splitlines() if "$schema" not in line),
    ]
    group = None if method.class_path is None else class_group("model.adapter", method.class_path)
    if group is not None:
        lines += ["", f"settings of {group.title}", ""]
        named = ((setting.key.rpartition(".")[2], setting) for setting in group.settings)
        for name, setting in ((name, setting) for name, setting in named if name not in BOOKKEEPING):
            lines += setting_lines(setting, method.settings.get(name, setting.default), 120)
    return "\n".join(lines)
