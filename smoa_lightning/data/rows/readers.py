"""Readers of text files: they yield each row with its place. ``columnar_readers`` has the readers of Arrow tables.

Rows are read one after the other. Only a JSON file that is not JSON lines is parsed completely.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.common.paths import near_place
from smoa_lightning.data.rows.columnar_readers import read_arrow, read_parquet
from smoa_lightning.data.rows.located import DataFile, Located, place, refuse_duplicate_columns, split_ending
from smoa_lightning.data.rows.locations import exists, opened
from smoa_lightning.data.tasks import RowError, Task

SPACE = re.compile(r"\s*")
LONGEST_FIELD = 2**31 - 1  # characters of a field in a text table; Python's own limit is 131,072
MARKS = {b"\x1f\x8b": "gzip, .gz", b"BZh": "bzip2, .bz2", b"\xfd7zXZ": "xz, .xz", b"(\xb5/\xfd": "zstandard, .zst"}


def is_data(name: str) -> bool:
    """Return whether a file name has an ending that is read."""
    return not name.startswith((".", "_")) and split_ending(name)[1] in READERS


def read_file(name: str, task: Task) -> Iterator[Located]:
    """Yield the rows of a file; its ending decides the format.

    Rows count from 1. If the number of the line is different (blank lines, a header), the place names it too.

    Raises:
        UserError: a missing or damaged file, an unknown ending, a file of a different format than its ending.
    """
    _, ending, compression = split_ending(name.rsplit("/", 1)[-1])
    if not exists(name):
        raise UserError(f"{name} does not exist{near_place(name)}.")
    if ending not in READERS:
        raise UserError(
            f"{name}: unknown file ending {ending!r}; the endings {', '.join(READERS)} are read"
            f" (nearest: {nearest(ending, READERS, 1)})."
        )
    try:
        yield from READERS[ending](DataFile(name, ending, compression), task)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{name}: cannot be read ({reason}).") from error


# ---- text


@contextlib.contextmanager
def _text(file: DataFile, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    """Open a UTF-8 file as text without its byte order mark.

    Args:
        file: The file.
        newline: The end of a line; None: a line feed, or in a file without one the carriage return of old Macs.

    Raises:
        UserError: it is not UTF-8; names the line.
    """
    with opened(file.name, file.compression) as stream:
        if newline is None:
            start = stream.peek(1)
            newline = "\r" if b"\r" in start and b"\n" not in start else "\n"
        with io.TextIOWrapper(stream, encoding="utf-8-sig", newline=newline) as text:
            try:
                yield text
            except UnicodeDecodeError:
                raise _not_utf8(file) from None


def _not_utf8(file: DataFile) -> UserError:
    """Return the error for a file that is not UTF-8, with the line and the probable format."""
    with opened(file.name, file.compression) as stream:
        start, hint = stream.peek(4)[:6], ""
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            hint = "; it looks like UTF-16, so save it as UTF-8"
        for mark, kind in MARKS.items():
            if start.startswith(mark):
                hint = "; it looks like {}, so its name must end in {}".format(*kind.split(", "))
        for number, line in enumerate(stream, start=1):
            data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            try:
                data.decode()
            except UnicodeDecodeError as error:
                byte, column = data[error.start], error.start + 1
                return UserError(
                    f"{file.name}, line {number}: not valid UTF-8 (byte 0x{byte:02x} at column {column}){hint}."
                )
    return UserError(f"{file.name}: not valid UTF-8{hint}.")


def _numbered(text: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number, text); after a line end at the end of the file there is one more, empty line."""
    number, line = 0, ""
    for number, line in enumerate(text, start=1):
        yield number, line.rstrip("\r\n")
    if line.endswith(("\n", "\r")):
        yield number + 1, ""


# ---- JSON


class _TwiceError(ValueError):
    """The error of a key that comes twice in one object: its first value would be lost."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _exceeded_limit(error: Exception) -> str:
    """Return which limit of Python's JSON reader a text exceeds."""
    if isinstance(error, RecursionError):
        return "lists or objects are nested too deeply"
    return "a whole number has more than 4,300 digits"


def read_jsonl(file: DataFile, task: Task) -> Iterator[Located]:
    """Yield one row for each line; blank lines are skipped."""
    row = 0
    with _text(file) as text:
        for number, line in _numbered(text):
            if not line.strip():
                continue
            row += 1
            here = place(file.name, row, number)
            try:
                value = DECODER.decode(line)
            except _TwiceError as error:
                raise UserError(f"{here}: the key {str(error)!r} appears twice in one object; remove one.") from None
            except json.JSONDecodeError as error:
                reason = f"{error.msg} at column {error.colno}"
                raise UserError(f"{here}: not valid JSON ({reason}): {line[:60]!r}.") from None
            except (RecursionError, ValueError) as error:
                raise UserError(f"{here}: not readable as JSON ({_exceeded_limit(error)}).") from None
            yield Located(here, value)


def read_json(file: DataFile, task: Task) -> Iterator[Located]:
    """Yield the rows of a list of objects, an object of equally long lists, several values, or JSON lines."""
    with _text(file) as text:
        first, second = (next((line for line in text if line.strip()), "") for _ in range(2))
    if second and _is_value(first):  # JSON lines: in many data sets they end in .json
        yield from read_jsonl(file, task)
        return
    with _text(file, newline="") as text:
        values = _values(text.read(), file.name)
    content = values[0] if len(values) == 1 else values
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        content = _rows_of_columns(content, file.name)
    elif isinstance(content, dict) and content:
        content = [content]
    if not isinstance(content, list):
        raise UserError(f"{file.name}: must hold a list of rows or an object of columns.")
    for number, row in enumerate(content, start=1):
        yield Located(f"{file.name}, row {number}", row)


def _is_value(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _after_space(text: str, position: int) -> int:
    found = SPACE.match(text, position)
    assert found is not None  # the pattern also matches the empty text
    return found.end()


def _values(text: str, name: str) -> list[Any]:
    """Return the JSON values of a text, one after the other.

    Raises:
        UserError: the text is not JSON; names the line.
    """
    values: list[Any] = []
    position = _after_space(text, 0)
    while not values or position < len(text):
        try:
            value, position = DECODER.raw_decode(text, position)
        except _TwiceError as error:
            row = f", row {len(values) + 1}" if values else ""
            raise UserError(f"{name}{row}: the key {str(error)!r} appears twice in one object; remove one.") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{name}, line {error.lineno}: not valid JSON ({error.msg}).") from None
        except (RecursionError, ValueError) as error:
            raise UserError(f"{name}: not readable as JSON ({_exceeded_limit(error)}).") from None
        values.append(value)
        position = _after_space(text, position)
    return values


def _rows_of_columns(columns: dict[str, list[Any]], name: str) -> list[dict[str, Any]]:
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{column} {length}" for column, length in lengths.items())
        raise UserError(f"{name}: the columns have different lengths: {listed}.")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# ---- tables as text


def read_table(file: DataFile, task: Task) -> Iterator[Located]:
    """Yield the rows of a text table with a header; each field of the schema parses its own text.

    In ``.tsv`` files tabs separate the values. In ``.csv`` files the separator is the first of comma, semicolon, tab
    and bar that the header contains.
    """
    # newline="": csv itself handles the line ends of Windows and of old Macs, and line ends within quotes
    with _text(file, newline="") as text:
        lines = _tab_lines(text) if _has_a_row_in_each_line(file) else _csv_lines(text, file)
        _, header = next(lines, (0, []))
        refuse_duplicate_columns(file.name, header)
        for number, (line, values) in enumerate(lines, start=1):
            here = place(file.name, number, line)
            if len(values) != len(header):
                raise UserError(f"{here}: has {len(values)} values, but the header names {len(header)} fields.")
            yield Located(here, {name: task.parse(name, part) for name, part in zip(header, values, strict=True)})


def _has_a_row_in_each_line(file: DataFile) -> bool:
    """Whether the lines of a ``.tsv`` file have equally many tabs, so that no quoted value has a tab or a line break.

    Then quotes belong to the texts, as in the files of GLUE, where they may be single. They join no lines.
    """
    if file.ending != ".tsv":
        return False
    with _text(file, newline="") as text:
        counts = {line.count("\t") for line in text if line.strip("\r\n")}
    return len(counts) == 1 and counts != {0}


def _csv_lines(text: io.TextIOWrapper, file: DataFile) -> Iterator[tuple[int, list[str]]]:
    """Yield the last line and the values of each row that is not empty.

    Raises:
        UserError: the quotes of the file are wrong.
    """
    first = text.readline()
    unquoted = re.sub('"[^"]*"', "", first)
    separator = "\t" if file.ending == ".tsv" else next((sign for sign in ",;\t|" if sign in unquoted), ",")
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(itertools.chain([first], text), delimiter=separator, strict=True)
    begin = 0  # the last line of the row before
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
            begin = reader.line_num
    except csv.Error as error:
        last = reader.line_num
        since = f"; the row begins at line {begin + 1}" if begin + 1 < last else ""
        raise UserError(f"{file.name}, after line {last}: not a valid table ({error}{since}).") from None


def _tab_lines(text: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the values of each line that is not empty.

    Quotes around whole values are not a part of them: pandas writes these.
    """
    csv.field_size_limit(LONGEST_FIELD)
    for number, line in enumerate(text, start=1):
        own = line.rstrip("\r\n")
        try:
            values = next(csv.reader([own], delimiter="\t", strict=True), [])
        except csv.Error:
            values = []
        if own and len(values) != own.count("\t") + 1:  # a quotation begins in one text and ends in another
            values = own.split("\t")
        if values:
            yield number, values


def read_text(file: DataFile, task: Task) -> Iterator[Located]:
    """Yield the rows of a text file in the original layout of the task's data set.

    Raises:
        UserError: the task has no such layout; a line breaks the layout.
    """
    if task.read_text is None:
        others = ", ".join(ending for ending in READERS if ending != ".txt")
        raise UserError(f"{file.name}: task {task.name!r} has no plain-text layout; the endings {others} are read.")
    line = 0

    def lines(text: Iterable[str]) -> Iterator[tuple[int, str]]:
        nonlocal line
        for number, content in _numbered(text):
            line = number  # if an error follows, it is in the last line read
            yield number, content

    with _text(file) as text:
        try:
            for number, (start, row) in enumerate(task.read_text(lines(text)), start=1):
                yield Located(place(file.name, number, start), row)
        except RowError as error:
            raise UserError(f"{file.name}, line {line}: {error}.") from None


READERS: dict[str, Callable[[DataFile, Task], Iterator[Located]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".csv": read_table,
    ".tsv": read_table,
    ".txt": read_text,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".ndjson": read_jsonl,
}
