"""Readers of local files: JSONL, JSON, Parquet, CSV, TSV and a task's own text to rows that know where they stand.

Rows are read as they are asked for. Only JSON is parsed as a whole.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.tasks import RowError, Task


class Located(NamedTuple):
    """A row as it was read, and where: ``train.jsonl, row 3``."""

    place: str
    row: Any


def read_file(path: Path, task: Task) -> list[Located]:
    """Return the rows of a file, its format told by its ending.

    Rows count from 1. Where rows and lines part (blank lines, a header), the line is named too.

    Raises:
        UserError: a missing or empty file, an unknown ending, a file that is not what its ending says.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    if path.suffix not in READERS:
        raise UserError(
            f"{path}: unknown file ending {path.suffix!r}; the endings {', '.join(READERS)} are read"
            f" (nearest: {nearest(path.suffix, READERS, 1)})."
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty.")
    rows = list(READERS[path.suffix](path, task))
    if not rows:
        raise UserError(f"{path}: the file holds no rows.")
    return rows


class NotUtf8Error(UserError):
    """A line that is not UTF-8: says which one, and where in it."""

    def __init__(self, path: Path, line: int, error: UnicodeDecodeError) -> None:
        self.line, self.byte, self.reason = line, f"0x{error.object[error.start]:02x}", str(error)
        super().__init__(f"{path}, line {line}: not valid UTF-8 (byte {self.byte} at column {error.start + 1}).")


def place(path: Path, row: int, line: int) -> str:
    """Name a row of a file, with its line where that is another number.

    >>> place(Path("a.jsonl"), 2, 2), place(Path("a.csv"), 2, 3)
    ('a.jsonl, row 2', 'a.csv, row 2 (line 3)')
    """
    return f"{path}, row {row}" if row == line else f"{path}, row {row} (line {line})"


def _ended_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text with its line end) of a UTF-8 file; a byte order mark at its start is dropped."""
    with path.open("rb") as stream:
        for number, data in enumerate(stream, start=1):
            line = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise NotUtf8Error(path, number, error) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of a UTF-8 file; after a line end at its end there is one more, empty line."""
    number, line = 0, "\n"
    for number, line in _ended_lines(path):
        yield number, line.removesuffix("\n")
    if line.endswith("\n"):
        yield number + 1, ""


def read_jsonl(path: Path, task: Task) -> Iterator[Located]:
    """Yield one row a line; blank lines are passed over."""
    row = 0
    for number, line in _lines(path):
        if not line.strip():
            continue
        row += 1
        here = place(path, row, number)
        try:
            yield Located(here, json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{here}: not valid JSON ({error.msg} at column {error.colno}): {line[:60]!r}.") from None


def read_json(path: Path, task: Task) -> Iterator[Located]:
    """Yield the rows of a list of objects, of an object of equally long lists, or of JSON lines under this ending."""
    text = "\n".join(line for _, line in _lines(path))
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # several values: JSON lines, which many data sets ship as .json
            yield from read_jsonl(path, task)
            return
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from None
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        lengths = {name: len(column) for name, column in content.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(f"{path}: the columns are not equally long: {listed}.")
        content = [dict(zip(content, values, strict=True)) for values in zip(*content.values(), strict=True)]
    elif isinstance(content, dict) and content:
        content = [content]  # JSON lines with a single line
    if not isinstance(content, list):
        raise UserError(f"{path}: must hold a list of rows or an object of columns.")
    for number, row in enumerate(content, start=1):
        yield Located(f"{path}, row {number}", row)


def read_parquet(path: Path, task: Task) -> Iterator[Located]:
    """Yield the rows of a Parquet file, of which some thousand are in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            rows = (row for batch in table.iter_batches(batch_size=1000) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield Located(f"{path}, row {number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}).") from None


def read_table(path: Path, task: Task, delimiter: str = ",") -> Iterator[Located]:
    """Yield the rows of a text table with a header; each field of the schema reads its own value from the text."""
    # line ends as they are, those of Windows and of old Macs too: csv tells them from those within quotes
    lines = (part for _, line in _ended_lines(path) for part in io.StringIO(line, newline=""))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        for number, values in enumerate((values for values in reader if values), start=1):
            here = place(path, number, reader.line_num)
            if len(values) != len(header):
                raise UserError(f"{here}: has {len(values)} values, but the header names {len(header)} fields.")
            yield Located(here, {name: task.parse(name, text) for name, text in zip(header, values, strict=True)})
    except csv.Error as error:
        raise UserError(f"{path}, after line {reader.line_num}: not a valid table ({error}).") from None


def read_tab_separated(path: Path, task: Task) -> Iterator[Located]:
    """Yield the rows of a table whose values are parted by tabs."""
    return read_table(path, task, delimiter="\t")


def read_text(path: Path, task: Task) -> Iterator[Located]:
    """Yield the rows of a text file in the layout that the task's data set was first given out in.

    Raises:
        UserError: the task has no such layout; a line that is not of it.
    """
    if task.read_text is None:
        others = ", ".join(ending for ending in READERS if ending != ".txt")
        raise UserError(f"{path}: task {task.name!r} has no layout as plain text; the endings {others} are read.")
    line = 0

    def lines() -> Iterator[tuple[int, str]]:
        nonlocal line
        for number, text in _lines(path):
            line = number  # the last line that was read is the one that is wrong
            yield number, text

    try:
        for number, (start, row) in enumerate(task.read_text(lines()), start=1):
            yield Located(place(path, number, start), row)
    except RowError as error:
        raise UserError(f"{path}, line {line}: {error}.") from None


READERS: dict[str, Callable[[Path, Task], Iterator[Located]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".csv": read_table,
    ".tsv": read_tab_separated,
    ".txt": read_text,
}

# Those that hold a few rows in memory at a time, whatever the size of the file.
LAZY_READERS = {ending: READERS[ending] for ending in (".jsonl", ".parquet", ".csv", ".tsv")}
