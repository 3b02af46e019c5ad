"""A report before it has a format: paragraphs, tables and figures in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIGURES = "figures"  # the folder of the drawings, beside the report


@dataclass(frozen=True)
class Heading:
    """A heading of the second level."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        title: Its heading.
        numbers: Whether it holds numbers, which stand to the right.
    """

    title: str
    numbers: bool = True


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: Of its files.
        caption: What it shows.
        columns: Its columns.
        rows: Texts, one for each column.
        best: Rows that are printed in bold.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[int] = frozenset()

    @property
    def titles(self) -> list[str]:
        """The headings."""
        return [column.title for column in self.columns]


@dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        name: Of its files, ``<name>.svg`` and ``<name>.png``.
        caption: What it shows, and what its marks and bars mean.
        svg: The drawing.
    """

    name: str
    caption: str
    svg: str


Block = Heading | Paragraph | Points | Table | Picture


@dataclass(frozen=True)
class Document:
    """A report.

    Args:
        title: Its title.
        blocks: What stands below it.
    """

    title: str
    blocks: tuple[Block, ...]

    @property
    def tables(self) -> list[Table]:
        """All tables."""
        return [block for block in self.blocks if isinstance(block, Table)]


def columns(titles: Sequence[str], texts: int = 1) -> tuple[Column, ...]:
    """Return columns of which the first ``texts`` hold words."""
    return tuple(Column(title, number >= texts) for number, title in enumerate(titles))
