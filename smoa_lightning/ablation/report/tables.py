"""The tables of a report for readers; the files with the same numbers for programs are in ``csv_files.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import decimals, unit
from smoa_lightning.ablation.report.comparisons import BASE_MODEL, Comparison
from smoa_lightning.ablation.report.estimates import estimate_text, interval_text, no_difference_interval, no_interval
from smoa_lightning.ablation.report.summary import best_cell
from smoa_lightning.ablation.statistics import Difference
from smoa_lightning.ablation.statistics.verdict import p_text
from smoa_lightning.records.page.document import Table, columns

DIFFERENCE_TITLES = (
    "cell", "baseline", "test", "verdict", "difference", "corrected 95 % interval", "p", "p (Holm)", "g", "seeds",
    "items",
)  # fmt: skip
MOVED = ("baseline", "test", "seeds", "items")  # columns that move to the caption if they are the same in all rows
# Name of a cost -> its title and how it is shown.
COST_COLUMNS = {
    "parameters": ("trainable", ",.0f"), "bytes": ("adapter, kB", ",.0f"), "rank": ("effective rank", ".1f"),
    "step": ("s a step", ".3f"), "tokens_per_second": ("tokens/s", ",.0f"),
    "images_per_second": ("images/s", ",.0f"), "memory": ("peak memory, MB", ",.0f"),
    "seconds": ("s a run", ".0f"),
}  # fmt: skip


def cell_table(analysis: Analysis) -> Table:
    """Return the table of scores."""
    with_iqm = any(cell.iqm is not None for cell in analysis.cells)
    titles = ["cell", "metric", "mean", "95 % interval", *(["IQM, 95 % interval"] if with_iqm else []), "seeds"]
    rows = []
    for cell in analysis.cells:
        mean = cell.estimate
        value = "" if mean is None else f"{mean.value:.3f}"
        ends = no_interval(cell)
        if mean is not None and mean.low is not None and mean.high is not None:
            ends = interval_text(mean.low, mean.high)
        iqm = [estimate_text(cell.iqm)] if with_iqm else []
        rows.append((cell.name, cell.metric, value, ends, *iqm, f"{len(cell.runs)} of {cell.planned}"))
    caption = "Cells: mean score over seeds."
    return without_constant_columns(
        Table("cells", caption, columns(titles, 2), tuple(rows), _best_row(analysis)), ["metric"]
    )


def cost_table(analysis: Analysis) -> Table:
    """Return the table of sizes and costs."""
    titles = ["cell", *(title for title, _ in COST_COLUMNS.values())]
    rows = []
    for cell in analysis.cells:
        values = {**cell.costs, "bytes": cell.costs["bytes"] / 1000} if "bytes" in cell.costs else cell.costs
        rows.append((cell.name, *(_number(values.get(name), form) for name, (_, form) in COST_COLUMNS.items())))
    caption = "Cells: size and cost."
    return without_constant_columns(Table("sizes", caption, columns(titles, 1), tuple(rows), _best_row(analysis)), [])


def _best_row(analysis: Analysis) -> frozenset[int]:
    best = best_cell(analysis)
    return frozenset(n for n, cell in enumerate(analysis.cells) if best is not None and cell.name == best.name)


def without_constant_columns(table: Table, titles: Sequence[str]) -> Table:
    """Move columns with the same text in all rows to the caption, and leave out empty columns.

    Args:
        table: The table.
        titles: The columns that may be moved.
    """
    places, same = list(range(len(table.columns))), []
    for place, column in enumerate(table.columns):
        texts = {row[place] for row in table.rows}
        if column.title in titles and len(texts) == 1:
            same.append(f"{column.title} {texts.pop()}")
            places.remove(place)
        elif texts == {""}:
            places.remove(place)
    caption = f"{table.caption} In all rows: {', '.join(same)}." if same else table.caption
    return _with_columns(replace(table, caption=caption), places)


def _with_columns(table: Table, places: Sequence[int]) -> Table:
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=rows)


def difference_table(analysis: Analysis) -> Table:
    """Return the table of differences from the baseline."""
    return compared_table("differences", "Differences from the baseline.", analysis.comparisons)


def gain_table(analysis: Analysis) -> Table:
    """Return the table of differences from the base model."""
    return compared_table("gains", f"Differences from {BASE_MODEL}, on the same items.", analysis.gains)


def compared_table(name: str, caption: str, comparisons: Sequence[Comparison]) -> Table:
    """Return a table of comparisons; the base model has no column for the baseline."""
    table = Table(name, caption, columns(DIFFERENCE_TITLES, 4), tuple(map(_difference_row, comparisons)))
    if all(each.baseline == BASE_MODEL for each in comparisons):
        table = _with_columns(table, [n for n, title in enumerate(DIFFERENCE_TITLES) if title != "baseline"])
    return without_constant_columns(table, MOVED)


def _difference_row(comparison: Comparison) -> tuple[str, ...]:
    difference, (scale, name) = comparison.interval, unit(comparison.metric)
    digits = decimals(comparison.metric)
    ends = ends_text(difference, scale, digits)
    size = f"{difference.value * scale:+.{digits}f}{f' {name}' if name else ''}"
    return (
        comparison.cell, comparison.baseline, comparison.test, comparison.verdict.outcome, size, ends,
        p_text(difference.p), p_text(comparison.adjusted), _number(comparison.effect, ".2f"),
        str(difference.n_seeds), "" if difference.n_items is None else str(difference.n_items),
    )  # fmt: skip


def contrast_table(analysis: Analysis) -> Table:
    """Return the table of planned contrasts."""
    rows = []
    for each in analysis.contrasts:
        d, (scale, name), digits = each.interval, unit(each.metric), decimals(each.metric)
        rows.append((
            each.name, f"{each.above} − {each.below}", f"{each.n_above} / {each.n_below}", each.verdict.outcome,
            f"{d.value * scale:+.{digits}f}{f' {name}' if name else ''}", ends_text(d, scale, digits),
            p_text(each.difference.p), p_text(each.adjusted), str(d.n_seeds),
            "" if d.n_items is None else str(d.n_items),
        ))  # fmt: skip
    titles = ["contrast", "of", "cells", "verdict", "difference", "corrected 95 % interval", "p", "p (Holm)", "seeds",
              "items"]  # fmt: skip
    table = Table("contrasts", "Planned contrasts.", columns(titles, 4), tuple(rows))
    return without_constant_columns(table, MOVED)


def ends_text(difference: Difference, scale: float, digits: int = 2) -> str:
    """Return the interval of a difference in the unit of reports, or why there is none."""
    if difference.low is None or difference.high is None:
        return no_difference_interval(difference)
    return f"[{difference.low * scale:+.{digits}f}, {difference.high * scale:+.{digits}f}]"


def grid_tables(analysis: Analysis) -> list[Table]:
    """Return the tables of effects of the axes; none without them."""
    grid = analysis.grid
    if grid is None:
        return []
    rows = tuple(
        (t.name, t.estimable, str(t.df), _number(t.f, ".2f"), p_text(t.p), _number(t.partial_eta_squared, ".2f"))
        for t in grid.terms
    )
    terms = Table(
        "effects", "Main effects and two-way interactions (least squares, seeds as blocks).",
        columns(["term", "estimable", "df", "F", "p", "partial eta²"], 2), rows,
    )  # fmt: skip
    metric = analysis.scored[0].metric
    scale, digits = unit(metric)[0], decimals(metric)
    levels = tuple(
        (e.axis, str(e.level), str(e.against), "not estimable" if e.value is None else f"{e.value * scale:+.{digits}f}",
         "" if e.low is None or e.high is None else f"[{e.low * scale:+.{digits}f}, {e.high * scale:+.{digits}f}]")
        for e in grid.levels
    )  # fmt: skip
    effects = Table(
        "levels", "Difference of each level from the first level of its axis, other axes fixed, without interactions.",
        columns(["axis", "level", "against", "difference", "95 % interval"], 3), levels,
    )  # fmt: skip
    return [terms, effects]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
