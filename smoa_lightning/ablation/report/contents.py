"""The contents of a report in order: the result, numbers, figures, and where everything comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import unit
from smoa_lightning.ablation.report.comparisons import Comparison
from smoa_lightning.ablation.report.provenance import provenance
from smoa_lightning.ablation.report.searches import search_blocks
from smoa_lightning.ablation.report.secondary import secondary_blocks
from smoa_lightning.ablation.report.summary import headline, missing, opening, summary
from smoa_lightning.ablation.report.tables import (
    cell_table,
    contrast_table,
    cost_table,
    difference_table,
    gain_table,
    grid_tables,
)
from smoa_lightning.ablation.report.trade_off_page import trade_off_blocks
from smoa_lightning.ablation.statistics.seed_variance import UNEQUAL
from smoa_lightning.ablation.statistics.verdict import p_text
from smoa_lightning.records.page.document import (
    Block,
    Document,
    Figures,
    Heading,
    Paragraph,
    Picture,
    Points,
    Table,
)
from smoa_lightning.records.record import STUDY_FACTS

FIRST = "forest"  # the figure at the beginning of the page
ONE_BASE = (
    "The base model has no seed, so its score of each item is subtracted from the score of every seed of a cell. "
)
BASE_BY_SEED = (
    "The few-shot prompts or the new head of the base model follow the seed, so the base model has a score for each "
    "seed, which is subtracted seed by seed. "
)
GAIN_NOTE = "p and intervals are corrected for the comparisons of this table, separately from those with the baseline. "
CONTRAST_NOTE = (
    "A contrast of two sides is the mean of the cells of one side minus that of the other, over all other axes. A "
    "trend is the change for each step of an axis (2 x r: each doubling), with the other axes fixed. Seeds and items "
    "are paired as in the other tables. p and intervals are corrected for the contrasts of this table, which the study "
    "declared."
)
GRID_NOTE = "The p-values of the terms are not corrected for their number. They hold for new seeds on the same items."
FILES_NOTE = (
    "The folder tables has the numbers of this page as CSV files, with all digits and one column for each axis; "
    "runs.csv has one row for each run with every metric. For a paper, tables/*.tex are LaTeX tables, and "
    "`report FOLDER --figures pdf,png` also writes the figures as PDF and as PNG with a high resolution. ± is a "
    "standard error; a 95 % interval is in brackets."
)


def contents(analysis: Analysis, pictures: Sequence[Picture], made_by: str) -> Document:
    """Return the report.

    Args:
        analysis: The numbers.
        pictures: The figures.
        made_by: The command that makes the report.
    """
    name = str(analysis.study.description["name"])
    blocks: list[Block] = [Paragraph(headline(analysis), lead=True)]
    blocks += [picture for picture in pictures if picture.name == FIRST]
    blocks += [Paragraph(opening(analysis))]
    blocks += [Heading("What is established, and what is not"), *Points(tuple(summary(analysis))).folded("sentences")]
    blocks += [Heading("Cells"), cell_table(analysis), Paragraph(_cell_note()), cost_table(analysis)]
    blocks += [Paragraph(_cost_note(analysis))]
    if analysis.comparisons:
        blocks += [
            Heading("Differences from the baseline"),
            difference_table(analysis),
            Paragraph(_difference_note(analysis)),
        ]
    if analysis.contrasts:
        blocks += [Heading("Planned contrasts"), contrast_table(analysis), Paragraph(CONTRAST_NOTE)]
    if analysis.gains:
        blocks += [
            Heading("Differences from the base model"),
            gain_table(analysis),
            Paragraph(_base_note(analysis) + GAIN_NOTE + seed_note(analysis.gains)),
        ]
    blocks += [*secondary_blocks(analysis), *trade_off_blocks(analysis)]
    if analysis.grid is not None:
        blocks += [Heading("Effects of the axes"), *grid_tables(analysis), Paragraph(GRID_NOTE)]
    others = tuple(picture for picture in pictures if picture.name != FIRST)
    if others:
        blocks += [Heading("Figures"), Figures(others)]
    blocks += search_blocks(analysis.study)
    blocks += [Heading("Missing and failed"), *Points(tuple(missing(analysis))).folded("sentences")]
    blocks += [Heading("Where the numbers come from"), *provenance(analysis, made_by), Paragraph(FILES_NOTE)]
    return Document(f"Study {name}", tuple(block.folded() if isinstance(block, Table) else block for block in blocks))


def _cell_note() -> str:
    return (
        "The intervals of cells are Student's t-intervals over seeds: they hold for new seeds on the same items. "
        "Cells with overlapping intervals may differ, and cells with separate intervals may not: use the paired "
        "differences below to compare cells."
    )


def _cost_note(analysis: Analysis) -> str:
    text = "Costs are medians over runs. "
    if analysis.study.description.get("search") is not None:
        text += "Each cell ran with the best values of its own search. "
    if len({run.record[STUDY_FACTS].get("worker") for run in analysis.study.finished}) > 1:
        text += "Several workers ran this study. If they shared a machine at a time, times are not exact."
    return text.strip()


def seed_note(comparisons: Sequence[Comparison]) -> str:
    """Return how the variances over seeds were pooled, with p of Bartlett's test for each group of cells."""
    pools = {id(each.pooled.bartlett): each.pooled for each in comparisons if each.pooled is not None}
    parts = []
    for pooled in pools.values():
        p = float(pooled.bartlett)
        if pooled.cells < 3 or math.isnan(p):
            continue
        shown = p_text(p) if p_text(p).startswith("<") else f"= {p_text(p)}"
        how = "are pooled" if pooled.used else f"are not pooled, since they differ at the level of {UNEQUAL:g}"
        parts.append(f"The seed variances of {pooled.cells} cells {how} (Bartlett's test: p {shown}).")
    return " ".join(parts)


def _base_note(analysis: Analysis) -> str:
    return BASE_BY_SEED if any(base.by_seed for base, _ in analysis.base_models) else ONE_BASE


def _difference_note(analysis: Analysis) -> str:
    items = any(each.difference.n_items for each in analysis.comparisons)
    over = "paired seeds and paired items, and its interval covers the variation of both" if items else "paired seeds"
    return (
        f"Each difference is over {over}. p and intervals are corrected by Holm's method for all comparisons of this "
        "table. Better and worse mean an adjusted p below 0.05, so an interval without zero, with three or more seeds. "
        + ("" if analysis.margin is None else f"Equivalent means an interval within ±{_margin(analysis)}. ")
        + f"{seed_note(analysis.comparisons)} g is Hedges' effect size over seeds. It grows as training becomes more "
        "repeatable, so read the difference first. Metrics without a score for each item are compared over seeds only."
    ).replace("  ", " ")


def _margin(analysis: Analysis) -> str:
    """Return the margin of the study with its unit."""
    return f"{analysis.margin:g} {unit(analysis.scored[0].metric)[1]}".strip()
