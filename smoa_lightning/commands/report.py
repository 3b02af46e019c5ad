"""``report``: turn a study's folder into tables, figures and one page."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection
from pathlib import Path

from smoa_lightning.ablation.report.analysis import Analysis, analyse
from smoa_lightning.ablation.report.contents import contents
from smoa_lightning.ablation.report.csv_files import data_files
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.item_file import ITEM_FILE, item_file
from smoa_lightning.ablation.report.latex import latex
from smoa_lightning.ablation.report.markdown import markdown
from smoa_lightning.ablation.statistics.verdict import EQUIVALENT
from smoa_lightning.commands.arguments import ArgumentParser
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.common.paths import check_output_folder, local_path, near_place
from smoa_lightning.records.csv_text import csv_text
from smoa_lightning.records.page.document import FIGURES, Document
from smoa_lightning.records.page.html import page
from smoa_lightning.records.record import RECORD, STUDY

FORMATS = ("svg", "pdf", "png")  # of figures
logger = logging.getLogger(__name__)
RUN_PAGE = "run.html"
LATEX = ("cells", "sizes", "differences", "gains")  # tables for a paper; those of secondary metrics begin so too


def main(args: list[str]) -> None:
    """Write the report of a study's folder, or the page of a run.

    Raises:
        UserError: The folder holds neither a study nor a run, or the study has no finished run.
    """
    parser = ArgumentParser(
        prog="python -m smoa_lightning report",
        description="Turn the finished runs of a study into report.html (one page), report.md, tables (CSV, LaTeX) and "
        "figures (SVG; PDF and PNG with --figures), or one run into run.html. Needs no torch, and works while the "
        "study or the run goes on.",
    )
    parser.add_argument("folder", type=local_path, help="folder of a study, such as studies/rank, or of a run")
    parser.add_argument("--out", type=local_path, default=None, help="folder to write to (default: FOLDER/report)")
    parser.add_argument(
        "--figures", type=figure_formats, default=("svg",), metavar="FORMATS",
        help="formats of the figures, such as svg,pdf,png: PDF for LaTeX, PNG with a high resolution (default: svg)",
    )  # fmt: skip
    parser.add_argument(
        "--items", action="store_true",
        help="also write tables/items.csv.gz: the score of each item in each run, to compute the tables again",
    )  # fmt: skip
    parsed = parser.parse_args(args)
    out = parsed.out or parsed.folder / "report"
    if parsed.out is not None:
        check_output_folder(parsed.out, "report: --out")
    if not (parsed.folder / STUDY).is_file():
        _check_run(parsed.folder)
        if parsed.figures != ("svg",):
            raise UserError("report: --figures is for studies; the page of a run contains its figures")
        if parsed.items:
            raise UserError("report: --items is for studies; the folder of a run has its items.jsonl")
        print(write_run_page(parsed.folder, out, f"python -m smoa_lightning report {shlex.join(args)}"))
        return
    analysis, document = write_report(parsed.folder, out, parsed.figures, parsed.items)
    for sentence in analysis.study.damaged:
        logger.warning("%s", sentence)
    finished, planned = len(analysis.study.finished), len(analysis.cells) * len(analysis.study.description["seeds"])
    established = sum(each.verdict.established for each in analysis.comparisons)
    tested = f"{established} of {len(analysis.comparisons)} differences from the baseline established"
    if equivalent := sum(each.verdict.outcome == EQUIVALENT for each in analysis.comparisons):
        tested += f", {equivalent} equivalent within the margin"
    if not analysis.comparisons:
        tested = "no baseline or no pair of finished cells, so no difference was tested"
    print(f"{document.title}: {finished} of {planned} final runs, {tested}")
    print(out / "report.html")


def _check_run(folder: Path) -> None:
    if (folder / RECORD).is_file():
        return
    from smoa_lightning.ablation.comparison.scored_run import near

    meant = near(folder, STUDY, RECORD)
    hint = (
        f"; did you mean {meant}?" if meant else near_place(folder) or "; name a folder that ablate or fit has written"
    )
    exists = f"{folder} is not a study folder: it has no {STUDY}, nor a run: it has no {RECORD}"
    raise UserError((exists if folder.is_dir() else f"{folder} does not exist") + hint)


def write_run_page(folder: Path, out: Path, command: str) -> Path:
    """Write the page of one run, and return its file.

    Args:
        folder: The folder of the run.
        out: Folder to write to; an earlier page is replaced.
        command: The command that makes the page.

    Raises:
        UserError: A file of the run is damaged.
    """
    from smoa_lightning.ablation.run_page.contents import run_document

    text, file = page(run_document(folder, command)), out / RUN_PAGE
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def figure_formats(text: str) -> tuple[str, ...]:
    """Return the formats of a list with commas; the page always needs the SVG.

    Raises:
        UserError: A format is unknown.

    >>> figure_formats("pdf,PNG")
    ('svg', 'pdf', 'png')
    """
    names = [name.strip().lower().removeprefix(".") for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--figures: {name!r} is not a format of figures: use {nearest(name, FORMATS)}")
    return tuple(name for name in FORMATS if name in {"svg", *names})


def write_report(
    folder: Path, out: Path, formats: Collection[str] = ("svg",), items: bool = False
) -> tuple[Analysis, Document]:
    """Write the report of a study folder.

    Args:
        folder: The study folder.
        out: Folder to write to; files of an earlier report are replaced.
        formats: Formats of the figures, ``svg`` among them.
        items: Whether to write the scores of all items too.

    Raises:
        UserError: The folder holds no study, or no finished run; the metrics have no scores of items.
    """
    analysis = analyse(read_study(folder))
    compressed = item_file(analysis) if items else b""
    from smoa_lightning.ablation.report.drawing import save
    from smoa_lightning.ablation.report.figures import all_figures

    pictures = save(all_figures(analysis), out / FIGURES, formats)
    document = contents(
        analysis, pictures, f"python -m smoa_lightning report studies/{analysis.study.description['name']}"
    )
    files = {"report.html": page(document), "report.md": markdown(document)}
    files |= {f"tables/{name}.csv": csv_text([data.columns, *data.rows]) for name, data in data_files(analysis).items()}
    files |= {f"tables/{table.name}.tex": latex(table) for table in document.tables if table.name.startswith(LATEX)}
    for name, text in files.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if items:
        with replacing(out / "tables" / ITEM_FILE) as temporary:
            temporary.write_bytes(compressed)
    return analysis, document
