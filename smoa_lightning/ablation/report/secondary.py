"""The sections of a report on the secondary metrics of a study, each with tables and corrections of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import median

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import unit
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
        margin = "" if own.margin is None else f"Its margin is {own.margin:g} {unit(name)[1]}".strip() + "."
        sentences = [f"Scored by {name} ({better}).", margin, headline(own), sharpness(analysis, own), NOTE]
        blocks += [Heading(f"Secondary metric: {name}"), Paragraph(" ".join(filter(None, sentences)))]
        tables = [cell_table(own)]
        tables += [difference_table(own)] if own.comparisons else []
        tables += [contrast_table(own)] if own.contrasts else []
        tables += [gain_table(own)] if own.gains else []
        blocks += [replace(table, name=f"{table.name}_{name}") for table in tables]
    return blocks


def sharpness(analysis: Analysis, own: Analysis) -> str:
    """Return how large the standard errors of a secondary metric are, and how many of them a difference has.

    Both are medians, compared with those of the objective. Smaller errors alone say nothing: a metric that changes less
    has them too. It is empty if the metrics have different units, or no comparison has both errors.
    """
    kinds = {"differences from the baseline": (analysis.comparisons, own.comparisons)}
    kinds["gains over the base model"] = (analysis.gains, own.gains)
    parts = []
    for kind, (main, other) in kinds.items():
        found = _with_errors(main)
        pairs = [(new, found[place]) for place, new in _with_errors(other).items() if place in found]
        if pairs:
            ratio = median(new[1] / old[1] for new, old in pairs)
            sizes = [[abs(value) / error for value, error in pair] for pair in pairs]
            own, of_objective = (median(side) for side in zip(*sizes, strict=True))
            parts.append(
                f"{ratio:.2f} of those by the objective for the {kind}, which are {own:.1f} of their standard errors "
                f"from 0 instead of {of_objective:.1f}"
            )
    return f"Its standard errors are (medians) {'; '.join(parts)}." if parts else ""


def _with_errors(compared: Iterable[Comparison]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return cell and baseline -> difference and standard error, of shares only: other units cannot be compared."""
    return {
        (each.cell, each.baseline): (each.difference.value, error)
        for each in compared
        if METRICS[each.metric].unit == "share" and (error := each.difference.standard_error)
    }
