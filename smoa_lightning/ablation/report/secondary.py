"""The sections of a report on the secondary metrics of a study, each with tables and corrections of its own."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.comparisons import Comparison
from smoa_lightning.ablation.report.summary import headline
from smoa_lightning.ablation.report.tables import cell_table, contrast_table, difference_table, gain_table
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.page.document import Block, Heading, Paragraph

NOTE = (
    "This metric is a different quantity than the objective; the study file names it as secondary. Its tests are a "
    "family of their own: p and intervals are corrected for the comparisons of each of its tables, not for the other "
    "metrics. So the chance of a false result in any table grows with the number of metrics, and the conclusion of the "
    "study is that of the objective."
)


def secondary_blocks(analysis: Analysis) -> list[Block]:
    """Return the sections; empty without secondary metrics."""
    blocks: list[Block] = []
    for name, own in analysis.secondary.items():
        better = "higher is better" if own.direction == "maximize" else "lower is better"
        sentences = [f"Scored by {name} ({better}).", headline(own), sharpness(analysis, own), NOTE]
        blocks += [Heading(f"Secondary metric: {name}"), Paragraph(" ".join(filter(None, sentences)))]
        tables = [cell_table(own)]
        tables += [difference_table(own)] if own.comparisons else []
        tables += [contrast_table(own)] if own.contrasts else []
        tables += [gain_table(own)] if own.gains else []
        blocks += [replace(table, name=f"{table.name}_{name}") for table in tables]
    return blocks


def sharpness(analysis: Analysis, own: Analysis) -> str:
    """Return how large the standard errors of a secondary metric are, in shares of those of the objective.

    It is empty if the metrics have different units, or no comparison has both errors.
    """
    kinds = {"differences from the baseline": (analysis.comparisons, own.comparisons)}
    kinds["gains over the base model"] = (analysis.gains, own.gains)
    parts = []
    for kind, (main, other) in kinds.items():
        errors = {(each.cell, each.baseline): each.difference.standard_error for each in main if _is_share(each)}
        ratios = [
            each.difference.standard_error / before
            for each in other
            if each.difference.standard_error and _is_share(each) and (before := errors.get((each.cell, each.baseline)))
        ]
        if ratios:
            parts.append(f"{median(ratios):.2f} of those by the objective for the {kind}")
    return f"Its standard errors are (median) {' and '.join(parts)}." if parts else ""


def _is_share(each: Comparison) -> bool:
    return METRICS[each.metric].unit == "share"
