"""Raw rows with their place, and the files that they are read from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.locations import COMPRESSIONS


class Located(NamedTuple):
    """A row as it was read, and its place, such as ``train.jsonl, row 3``."""

    place: str
    row: Any


class DataFile(NamedTuple):
    """A file of rows.

    Args:
        name: Path or URL.
        ending: Its format: ``.jsonl``, ``.csv``, ...
        compression: ``.gz``, ``.bz2``, ``.xz``, ``.zst`` or nothing.
    """

    name: str
    ending: str
    compression: str = ""


def split_ending(name: str) -> tuple[str, str, str]:
    """Return the stem, the format and the compression of a file name, the last two in small letters.

    >>> split_ending("Train.JSONL.gz"), split_ending("README")
    (('Train', '.jsonl', '.gz'), ('README', '', ''))
    """
    head, dot, last = name.rpartition(".")
    compression = f".{last.lower()}" if dot and f".{last.lower()}" in COMPRESSIONS else ""
    stem, dot, ending = (head if compression else name).rpartition(".")
    return (stem, f".{ending.lower()}", compression) if dot else (ending, "", compression)


def place(name: str, row: int, line: int) -> str:
    """Name a row of a file, with its line if that is a different number.

    >>> place("a.jsonl", 2, 2), place("a.csv", 2, 3)
    ('a.jsonl, row 2', 'a.csv, row 2 (line 3)')
    """
    return f"{name}, row {row}" if row == line else f"{name}, row {row} (line {line})"


def refuse_duplicate_columns(name: str, columns: Iterable[str]) -> None:
    """Refuse two columns with the same name, since one would be lost. Several columns may have no name.

    Raises:
        UserError: names the column.
    """
    named = [column for column in columns if column.strip()]
    if duplicate := next((column for column in named if named.count(column) > 1), None):
        raise UserError(f"{name}: two columns are named {duplicate!r}; rename or remove one.")
