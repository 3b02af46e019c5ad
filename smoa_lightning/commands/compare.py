"""``compare RUN RUN ...``: finished runs side by side, with paired tests and the rows that only one gets right."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from smoa_lightning.commands.arguments import ArgumentParser
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.paths import check_output_folder, local_path

PAGE = "compare.html"


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    result = ArgumentParser(
        prog="python -m smoa_lightning compare",
        description="Compare finished runs of one task: scores with paired tests over the report rows, settings that "
        "differ, records, and the rows that one run gets right and the other wrong. Needs no torch.",
    )
    result.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run; `base` is the first run's base model")
    result.add_argument(
        "--output", type=local_path, default=None, metavar="DIR", help=f"write {PAGE} and CSV files here"
    )
    result.add_argument("--metric", default=None, help="main metric, which says what is right (default: the task's)")
    result.add_argument("--baseline", default=None, metavar="RUN", help="run to compare with (default: the first)")
    result.add_argument(
        "--group", choices=["seed"], default=None, help="compare runs that differ only in their seed as one"
    )
    return result


def main(args: list[str]) -> None:
    """Print the comparison, and write its files with ``--output``.

    Raises:
        UserError: The runs cannot be compared.
    """
    options = parser().parse_args(args)
    if options.output is not None:
        check_output_folder(options.output, "compare: --output")
    from smoa_lightning.ablation.comparison.page import terminal_text
    from smoa_lightning.ablation.comparison.run import compare

    found = compare(options.runs, options.metric, options.baseline, options.group == "seed")
    if options.output is not None:  # before the text: a closed pipe ends the program
        write(found, options.output, f"python -m smoa_lightning compare {shlex.join(args)}")
    print(terminal_text(found))
    if options.output is not None:
        print(options.output / PAGE)


def write(found: Any, folder: Path, command: str) -> None:
    """Write the page and the CSV files of a comparison; files of an earlier comparison are replaced.

    Args:
        found: The comparison.
        folder: Folder to write to.
        command: The command that makes it.
    """
    from smoa_lightning.ablation.comparison.page import page_document
    from smoa_lightning.ablation.comparison.tables import files
    from smoa_lightning.records.csv_text import csv_text
    from smoa_lightning.records.page.html import page

    texts = {PAGE: page(page_document(found, command))}
    texts |= {name: csv_text(lines) for name, lines in files(found).items()}
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
