"""A report independent of its format: paragraphs, tables and figures in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

FIGURES = "figures"  # folder of the figures, next to the report
MOST_SENTENCES, MOST_ROWS = 6, 40  # of a list and of a table; the rest is folded


@dataclass(frozen=True)
class Heading:
    """A heading of the second level."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text.

    Args:
        text: The text.
        lead: Whether it is the summary at the top, in larger letters.
    """

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Code:
    """Text that keeps its lines: a file or a command."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    sentences: tuple[str, ...]

    def folded(self, what: str) -> list[Block]:
        """Return the list; the end of a long list is folded.

        Args:
            what: What is in the list, in the plural.
        """
        if len(self.sentences) <= MOST_SENTENCES + 2:
            return [self]
        first, rest = self.sentences[:MOST_SENTENCES], self.sentences[MOST_SENTENCES:]
        return [Points(first), Fold(f"{len(rest):,} more {what}", (Points(rest),))]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        title: Heading of the column.
        numbers: Whether the column has numbers, which are aligned to the right.
    """

    title: str
    numbers: bool = True


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: Name of its files.
        caption: Text above the table.
        columns: The columns.
        rows: Texts, one for each column.
        best: Numbers of the rows in bold.
        most_rows: ``folded`` folds the table if it has more rows.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[int] = frozenset()
    most_rows: int = MOST_ROWS

    @property
    def titles(self) -> list[str]:
        """The headings."""
        return [column.title for column in self.columns]

    def folded(self) -> Block:
        """Return the table; a long table is folded."""
        return self if len(self.rows) <= self.most_rows else Fold(f"{self.caption} {len(self.rows):,} rows", (self,))


@dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        name: Name of its files, such as ``<name>.svg``.
        caption: Subject of the figure, and the meaning of its marks and bars.
        svg: The figure as SVG.
    """

    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Fold:
    """Blocks below a line that opens them; they are closed at first.

    Args:
        summary: The line.
        blocks: The contents.
    """

    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Figures:
    """Figures that a wide page shows side by side."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Row:
    """Blocks next to each other, where the page is wide enough.

    Args:
        blocks: The contents.
    """

    blocks: tuple[Block, ...]


Block: TypeAlias = Heading | Paragraph | Points | Code | Table | Picture | Figures | Fold | Row


@dataclass(frozen=True)
class Document:
    """A report.

    Args:
        title: Title of the report.
        blocks: The contents below the title.
    """

    title: str
    blocks: tuple[Block, ...]

    @property
    def tables(self) -> list[Table]:
        """All tables, the folded ones included."""
        return list(_tables(self.blocks))


def _tables(blocks: Sequence[Block]) -> Iterator[Table]:
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Fold | Row):
            yield from _tables(block.blocks)


def columns(titles: Sequence[str], texts: int = 1) -> tuple[Column, ...]:
    """Return columns; the first ``texts`` columns have words, the others numbers."""
    return tuple(Column(title, number >= texts) for number, title in enumerate(titles))
