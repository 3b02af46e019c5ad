"""The contents of a report in order: established differences, numbers, figures, and where everything comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult, unit
from smoa_lightning.ablation.report.comparisons import BASE_MODEL, Comparison
from smoa_lightning.ablation.report.provenance import provenance
from smoa_lightning.ablation.report.searches import search_blocks
from smoa_lightning.ablation.statistics import Estimate, counted
from smoa_lightning.records.page.document import (
    Block,
    Document,
    Heading,
    Paragraph,
    Picture,
    Points,
    Table,
    columns,
)
from smoa_lightning.records.record import STUDY_FACTS

DIFFERENCE_TITLES = (
    "cell", "baseline", "test", "verdict", "difference", "95 % interval", "p", "p (Holm)", "g", "seeds", "items",
)  # fmt: skip
MEASURED = (("rank", ".1f"), ("step", ".3f"), ("tokens_per_second", ",.0f"), ("memory", ",.0f"), ("seconds", ".0f"))
GAIN_NOTE = (
    "The base model has no seed, so its score of each item is subtracted from the score of every seed of a cell. p is "
    "corrected for the comparisons of this table, separately from those with the baseline."
)


def contents(analysis: Analysis, pictures: Sequence[Picture], made_by: str) -> Document:
    """Return the report.

    Args:
        analysis: The numbers.
        pictures: The figures.
        made_by: The command that makes the report.
    """
    name = str(analysis.study.description["name"])
    blocks: list[Block] = [Paragraph(_opening(analysis)), Heading("What is established, and what is not")]
    blocks += [Points(tuple(_summary(analysis)))]
    blocks += [Heading("Cells"), cell_table(analysis), Paragraph(_cell_note(analysis))]
    if analysis.comparisons:
        blocks += [Heading("Differences from the baseline"), difference_table(analysis), Paragraph(_difference_note())]
    if analysis.gains:
        blocks += [Heading("Differences from the base model"), gain_table(analysis), Paragraph(GAIN_NOTE)]
    if analysis.grid is not None:
        blocks += [Heading("Effects of the axes"), *_grid_blocks(analysis)]
    blocks += search_blocks(analysis.study)
    if pictures:
        blocks += [Heading("Figures"), *pictures]
    blocks += [Heading("Missing and failed"), Points(tuple(_missing(analysis)))]
    blocks += [Heading("Where the numbers come from"), *provenance(analysis, made_by)]
    return Document(f"Study {name}", tuple(blocks))


def _opening(analysis: Analysis) -> str:
    description = analysis.study.description
    cells, runs, seeds = len(analysis.cells), len(analysis.study.finished), len(description["seeds"])
    metrics = sorted({cell.metric for cell in analysis.cells})
    better = "higher is better" if analysis.direction == "maximize" else "lower is better"
    text = f"{counted(cells, 'cell')} with {counted(seeds, 'seed')} each, {runs} of {cells * seeds} final runs "
    text += f"finished. Scored by {', '.join(metrics)} on the report rows ({better})."
    for base, cells_of in analysis.base_models:
        where = (
            "" if len(cells_of) == cells else f" for {cells_of[0].name} and the cells with the same rows and backbone"
        )
        text += f" The base model (the backbone before training) has {cells_of[0].metric} {base.score:.3f}"
        text += f"{where}." if math.isnan(base.error) else f" ± {base.error:.3f} (standard error over items){where}."
    return text


# -------------------------------------------------------------------------------------------------------------- summary


def _summary(analysis: Analysis) -> list[str]:
    return [*_gain_summary(analysis), *_difference_summary(analysis)]


def _gain_summary(analysis: Analysis) -> list[str]:
    """Say which cells are better or worse than the base model, and for which cells neither is established."""
    kinds: dict[str, list[str]] = {}
    for gain in analysis.gains:
        kind = "not established" if not gain.verdict.established else "better" if gain.verdict.better else "worse"
        kinds.setdefault(kind, []).append(gain.cell)
    beginnings = {
        "better": "Established to be better than the base model",
        "worse": "Established to be WORSE than the base model",
        "not established": "Not shown to differ from the base model",
    }
    sentences = []
    for kind, names in kinds.items():
        which = "" if len(names) == len(analysis.gains) else f", {'; '.join(names)}"
        sentences.append(f"{beginnings[kind]}: {len(names)} of {counted(len(analysis.gains), 'cell')}{which}.")
    return sentences


def _difference_summary(analysis: Analysis) -> list[str]:
    if not analysis.comparisons and not analysis.incomparable:
        return ["The study has no baseline, so no difference was tested."]
    established = [c for c in analysis.comparisons if c.verdict.established]
    open_ = [c for c in analysis.comparisons if not c.verdict.established]
    found = []
    if not established:
        number = counted(len(analysis.comparisons), "comparison")
        found.append(
            f"No difference from the baseline is established: none of {number} has an adjusted p below 0.05 with "
            "enough seeds."
        )
    found += [c.verdict.sentence for c in established]
    found += [c.verdict.sentence for c in open_]
    found += [f"{sentence}." for sentence in analysis.incomparable]
    best = _best(analysis)
    if best is not None and open_ and best.name not in {c.cell for c in established}:
        baseline = analysis.study.description["baselines"].get(best.name)
        if baseline != best.name:
            found.append(f"{best.name} has the best mean, but its difference from the baseline may be chance.")
    return found


def _best(analysis: Analysis) -> CellResult | None:
    scored = [cell for cell in analysis.scored if cell.estimate is not None]
    if not scored or len({cell.metric for cell in scored}) > 1:
        return None
    choose = max if analysis.direction == "maximize" else min
    return choose(scored, key=lambda cell: cell.estimate.value if cell.estimate is not None else 0.0)


# --------------------------------------------------------------------------------------------------------------- tables


def cell_table(analysis: Analysis) -> Table:
    """Return the table of cells with scores, sizes and costs."""
    with_iqm = any(cell.iqm is not None for cell in analysis.cells)
    titles = ["cell", "metric", "mean over seeds, 95 % interval", *(["IQM, 95 %"] if with_iqm else [])]
    titles += [
        "seeds",
        "trainable",
        "adapter, kB",
        "effective rank",
        "s a step",
        "tokens/s",
        "peak memory, MB",
        "s a run",
    ]
    rows = []
    for cell in analysis.cells:
        score = estimate_text(cell.estimate)
        iqm = [estimate_text(cell.iqm)] if with_iqm else []
        size = cell.costs.get("bytes")
        row = [cell.name, cell.metric, score, *iqm, f"{len(cell.runs)} of {cell.planned}"]
        row += [_number(cell.costs.get("parameters"), ",.0f"), _number(size and size / 1000, ",.0f")]
        row += [_number(cell.costs.get(name), form) for name, form in MEASURED]
        rows.append(tuple(row))
    best = _best(analysis)
    marked = frozenset(n for n, cell in enumerate(analysis.cells) if best is not None and cell.name == best.name)
    return without_constant_columns(
        Table("cells", "Cells: score, size and cost.", columns(titles, 2), tuple(rows), marked), ["metric"]
    )


def without_constant_columns(table: Table, titles: Sequence[str]) -> Table:
    """Move columns with the same text in all rows to the caption, and leave out empty columns.

    Args:
        table: The table.
        titles: The columns that may be moved.
    """
    caption, places = table.caption, list(range(len(table.columns)))
    for place, column in enumerate(table.columns):
        texts = {row[place] for row in table.rows}
        if column.title in titles and len(texts) == 1:
            caption += f" The {column.title} is the same in all rows: {texts.pop()}."
            places.remove(place)
        elif texts == {""}:
            places.remove(place)
    return _with_columns(replace(table, caption=caption), places)


def _with_columns(table: Table, places: Sequence[int]) -> Table:
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=rows)


def estimate_text(estimate: Estimate | None) -> str:
    """Return a mean with its interval.

    >>> estimate_text(Estimate(0.61, 0.585, 0.635, 3, 0.01))
    '0.610 [0.585, 0.635]'
    """
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def difference_table(analysis: Analysis) -> Table:
    """Return the table of differences from the baseline."""
    rows = tuple(_difference_row(comparison) for comparison in analysis.comparisons)
    table = Table("differences", "Differences from the baseline.", columns(DIFFERENCE_TITLES, 4), rows)
    return without_constant_columns(table, ["baseline", "test"])


def gain_table(analysis: Analysis) -> Table:
    """Return the table of differences from the base model."""
    rows = tuple(_difference_row(gain) for gain in analysis.gains)
    caption = f"Differences from {BASE_MODEL}, on the same items."
    table = without_constant_columns(Table("gains", caption, columns(DIFFERENCE_TITLES, 4), rows), ["test"])
    return _with_columns(table, [n for n, column in enumerate(table.columns) if column.title != "baseline"])


def _difference_row(comparison: Comparison) -> tuple[str, ...]:
    difference, (scale, name) = comparison.difference, unit(comparison.metric)
    ends = ""
    if difference.low is not None and difference.high is not None:
        ends = f"[{difference.low * scale:+.2f}, {difference.high * scale:+.2f}]"
    size = f"{difference.value * scale:+.2f}{f' {name}' if name else ''}"
    return (
        comparison.cell, comparison.baseline, comparison.test, comparison.verdict.label, size, ends,
        p_text(difference.p), p_text(comparison.adjusted), _number(comparison.effect, ".2f"),
        str(difference.n_seeds), "" if difference.n_items is None else str(difference.n_items),
    )  # fmt: skip


def p_text(p: float | None) -> str:
    """Return a p-value with three digits.

    >>> p_text(0.0004), p_text(0.02), p_text(None)
    ('< 0.001', '0.020', '')
    """
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _cell_note(analysis: Analysis) -> str:
    text = "The intervals of cells are Student's t-intervals over seeds: they hold for new seeds on the same items. "
    text += "Cells with overlapping intervals may differ, and cells with separate intervals may not: use the paired "
    text += "differences below to compare cells. Costs are medians over runs. "
    if analysis.study.description.get("search") is not None:
        text += "Each cell ran with the best values of its own search. "
    if len({run.record[STUDY_FACTS].get("worker") for run in analysis.study.finished}) > 1:
        text += "Several workers ran this study. They may have shared a machine, so times are not exact."
    return text.strip()


def _difference_note() -> str:
    return (
        "Each difference is over paired seeds and paired items, and its interval covers the variation of both. "
        "p is corrected by Holm's method for all comparisons of this table. Established means an adjusted p below 0.05 "
        "with at least three seeds. g is Hedges' effect size over seeds. It grows as training becomes more repeatable, "
        "so read the difference first. Metrics without a score for each item are compared over seeds only."
    )


def _grid_blocks(analysis: Analysis) -> list[Block]:
    grid = analysis.grid
    assert grid is not None
    rows = tuple(
        (t.name, t.estimable, str(t.df), _number(t.f, ".2f"), p_text(t.p), _number(t.partial_eta_squared, ".2f"))
        for t in grid.terms
    )
    terms = Table(
        "effects", "Main effects and two-way interactions (least squares, seeds as blocks).",
        columns(["term", "estimable", "df", "F", "p", "partial eta²"], 2), rows,
    )  # fmt: skip
    scale, _ = unit(analysis.scored[0].metric)
    levels = tuple(
        (e.axis, str(e.level), str(e.against), "not estimable" if e.value is None else f"{e.value * scale:+.2f}",
         "" if e.low is None or e.high is None else f"[{e.low * scale:+.2f}, {e.high * scale:+.2f}]")
        for e in grid.levels
    )  # fmt: skip
    effects = Table(
        "levels", "Difference of each level from the first level of its axis, other axes fixed, without interactions.",
        columns(["axis", "level", "against", "difference", "95 % interval"], 3), levels,
    )  # fmt: skip
    note = "The p-values of the terms are not corrected for their number. They hold for new seeds on the same items."
    return [terms, effects, Paragraph(note)]


def _missing(analysis: Analysis) -> list[str]:
    found = [
        f"{cell.name}: {len(cell.runs)} of {cell.planned} seeds are finished."
        for cell in analysis.cells
        if len(cell.runs) < cell.planned
    ]
    found += [
        f"{each['run']} failed after {each['attempts']} attempts: {each['reason']}" for each in analysis.study.failed
    ]
    found += [f"{sentence}." for sentence in analysis.study.damaged]
    found += [
        f"{c.cell} and its baseline do not both have these seeds, which are not compared: "
        f"{', '.join(map(str, c.dropped))}."
        for c in analysis.comparisons
        if c.dropped
    ]
    return found or ["Nothing is missing: every planned run is finished and was read."]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
