"""A comparison as a document for one HTML page, and as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from smoa_lightning.ablation.comparison.differences import only_sentence
from smoa_lightning.ablation.comparison.disagreements import Disagreement
from smoa_lightning.ablation.comparison.figure import forest
from smoa_lightning.ablation.comparison.tables import (
    Compared,
    differences,
    disagreement_table,
    records,
    scores,
    scores_down,
    settings,
)
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.records.metric_table import METRICS
from smoa_lightning.records.page.document import Block, Document, Fold, Heading, Paragraph, Points, Table
from smoa_lightning.records.score_notes import NEW_ROWS, about_rows
from smoa_lightning.records.tables import text_table

SHOWN, MOST = 10, 200  # rows of each kind that are open, and that are on the page at all
LISTED = 12  # row numbers of each kind on the terminal
WIDEST = 40  # letters of a cell on the terminal
MODELS = (
    f"The tests compare these trained models on {NEW_ROWS}. They do not compare methods: a different "
    "seed gives a different model. Give several seeds of each method and `--group seed` for that."
)
METHODS = (
    f"The tests are over seeds and rows, so they hold for new seeds and {NEW_ROWS}. Established means an "
    "adjusted p below 0.05 with at least three seeds."
)
MIXED = "A comparison of single runs is of these trained models only; one of several seeds holds for new seeds."


def sentences(found: Compared) -> list[str]:
    """Return what the main metric says about each side."""
    said = [" ".join(filter(None, [each.verdict.sentence, only_sentence(each)])) for each in found.main]
    return said or [f"The runs have no {found.metric} in common."]


def scope(found: Compared) -> str:
    """Return what the tests hold for."""
    tested = {each.difference.n_seeds > 1 for each in found.main}
    text = MODELS if tested == {False} else METHODS if tested == {True} else MIXED
    return about_rows(text, (run.record for side in found.sides for run in side.runs))


def page_document(found: Compared, command: str) -> Document:
    """Return the comparison as a document.

    Args:
        found: The comparison.
        command: The command that makes it.
    """
    tasks = ", ".join(found.rows.rows)
    title = f"{', '.join(side.label for side in found.sides[1:])} against {found.sides[0].label} on {tasks}"
    if len(found.sides) > 3:
        title = f"{len(found.sides) - 1} against {found.sides[0].label} on {tasks}"
    picture = forest(found)
    blocks: list[Block] = [Paragraph(sentences(found)[0], lead=True)]
    blocks += [Points(tuple(sentences(found)[1:]))] if len(found.main) > 1 else []
    blocks += [picture] if picture else []
    blocks += [Paragraph(" ".join(filter(None, [found.left_out, found.rows.sentence, scope(found)])))]
    blocks += [Paragraph(sentence) for sentence in found.notes]
    blocks += [Heading("Scores"), scores_down(found), *_differences(found)]
    blocks += [Heading("Rows on which they differ"), *_rows(found)]
    blocks += [Heading("Settings that differ"), settings(found) if found.settings else Paragraph("There are none.")]
    blocks += [Heading("Records"), records(found), Paragraph(f"Made by `{command}`.")]
    return Document(title, tuple(blocks))


def _differences(found: Compared) -> Iterator[Block]:
    table = differences(found)
    place = {title: number for number, title in enumerate(table.titles)}
    details = ("test", "standard error", "p", "only it right", "only baseline right")
    yield _chosen(table, [title for title in table.titles if title not in details], "")
    names = [title for title in ("run", "task", "metric") if title in place]
    yield Fold(
        "Tests: standard errors, p before the correction, counts", (_chosen(table, [*names, *details], "_tests"),)
    )


def _chosen(table: Table, titles: Sequence[str], ending: str) -> Table:
    """Return some columns of a table, so that it fits on the page."""
    places = [table.titles.index(title) for title in titles]
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return Table(table.name + ending, table.caption, tuple(table.columns[place] for place in places), rows)


def _rows(found: Compared) -> Iterator[Block]:
    for note in found.disagreements.notes:
        yield Paragraph(note)
    for number, (side, winner, loser, rows) in enumerate(_groups(found)):
        yield disagreement_table(found, rows[:SHOWN], f"rows_{number}", _caption(found, side, winner, loser, rows))
        rest = rows[SHOWN:MOST]
        if rest:
            more = f" The file rows.csv has all {len(rows):,}." if len(rows) > MOST else ""
            table = disagreement_table(found, rest, f"rows_{number}_more", f"The next {len(rest)} rows.{more}")
            yield Fold(f"{len(rest)} more rows on which {winner} is better than {loser}", (table,))
    if not found.disagreements.rows and not found.disagreements.notes:
        yield Paragraph("There are none: all agree on every row.")


def _groups(found: Compared) -> Iterator[tuple[str, str, str, list[Disagreement]]]:
    """Yield side, winner, loser, and the rows on which the winner is better by one metric."""
    baseline = found.sides[0].label
    for side in found.sides[1:]:
        for is_better in (True, False):
            winner, loser = (side.label, baseline) if is_better else (baseline, side.label)
            place = (side.label, is_better)
            own = [each for each in found.disagreements.rows if (each.side, each.side_is_better) == place]
            for by in dict.fromkeys(each.by for each in own):
                yield side.label, winner, loser, [each for each in own if each.by == by]


def _caption(found: Compared, side: str, winner: str, loser: str, rows: Sequence[Disagreement]) -> str:
    if not METRICS[rows[0].by].is_accuracy:
        return f"The {counted(len(rows), 'row')} on which {winner} is ahead of {loser} by most {rows[0].by} per token."
    grouped = any(len(each.runs) > 1 for each in found.sides if each.label in (side, found.sides[0].label))
    seeds = " in all seeds" if grouped else ""
    return f"{counted(len(rows), 'row')} that {winner} gets right and {loser} wrong{seeds}, by {rows[0].by}."


def terminal_text(found: Compared) -> str:
    """Return the comparison as tables for the terminal."""
    parts = [*sentences(found), *filter(None, [found.left_out, found.rows.sentence]), scope(found), *found.notes]
    tables = [scores(found), differences(found)]
    tables += [settings(found)] if found.settings else []
    facts = records(found)
    facts = replace(facts, rows=tuple(row for row in facts.rows if row[0] != "folder"))
    text = ["\n".join(parts), _folders(found), *(_terminal(table) for table in [*tables, facts])]
    return "\n\n".join([*text, *filter(None, [_row_numbers(found)])])


def _folders(found: Compared) -> str:
    """Return a line for each side: its label and the folder of its first run."""
    lines = []
    for side in found.sides:
        more = f" and {counted(len(side.runs) - 1, 'more run')}" if len(side.runs) > 1 else ""
        of_base = "the base model of " if side.is_base else ""
        lines.append((side.label, f"{of_base}{side.first.folder}{more}"))
    return text_table(["run", "folder"], lines, words=2)


def _terminal(table: Table) -> str:
    words = sum(not column.numbers for column in table.columns)
    kept = [place for place, title in enumerate(table.titles) if any(row[place] for row in table.rows) or not title]
    titles = [table.titles[place] for place in kept]
    rows = [[_cut(row[place]) for place in kept] for row in table.rows]
    return f"{table.caption}\n{text_table(titles, rows, words)}"


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"…{text[1 - WIDEST :]}"


def _row_numbers(found: Compared) -> str:
    lines = list(found.disagreements.notes)
    for side, winner, loser, rows in _groups(found):
        several = len(found.rows.rows) > 1
        numbers = ", ".join(f"{each.task} {each.row}" if several else str(each.row) for each in rows[:LISTED])
        more = f" and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
        lines.append(f"{_caption(found, side, winner, loser, rows).rstrip('.')}: {numbers}{more}")
    return "\n".join(lines)
