"""Rows of a file or of a hub snapshot, read one after the other as they are asked for, with the place of each."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from smoa_lightning.data.files import Located
from smoa_lightning.data.tasks import Task
from smoa_lightning.errors import UserError, nearest

EDGE = 1_000_000


@dataclass(frozen=True)
class RowStream:
    """Rows that can be read any number of times, one after the other.

    Args:
        name: What it is, for errors.
        identity: Changes where the rows change, as far as that can be told without reading them.
        read: Begins a new pass over the rows.
    """

    name: str
    identity: str
    read: Callable[[], Iterator[Located]]


def local_stream(file: Path, task: Task) -> RowStream:
    """Return the rows of a file that can be read piece by piece.

    Raises:
        UserError: a missing file, or one of an ending that is read as a whole.
    """
    if not file.is_file():
        raise UserError(f"{file}: there is no such file.")
    if file.suffix not in LAZY_READERS:
        raise UserError(
            f"{file}: files with the ending {file.suffix!r} can not be streamed; {', '.join(LAZY_READERS)} can"
            f" (nearest: {nearest(file.suffix, LAZY_READERS, 1)}), or set data.streaming: false."
        )
    reader = LAZY_READERS[file.suffix]
    return RowStream(str(file), _identity(file), lambda: reader(file, task))


def _identity(file: Path) -> str:
    """Return name, size and a digest of the first and the last million bytes: the whole file may take hours to read."""
    size, digest = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(stream.read(EDGE))
        stream.seek(max(0, size - EDGE))
        digest.update(stream.read(EDGE))
    return f"{file.name}, {size} bytes, {digest.hexdigest()}"


def hub_stream(snapshot: Path, repository: str, task: Task, split: str) -> RowStream:
    """Return the rows of a split of a data set's snapshot folder, see ``sources.fetch``.

    Raises:
        UserError: on the first row, where the snapshot has no such split.
    """
    name = f"{repository}@{snapshot.name[:12]} {split}"

    def read() -> Iterator[Located]:
        import datasets

        try:
            table = datasets.load_dataset(str(snapshot), name=task.hub_config, split=split, streaming=True)
        except (ValueError, datasets.exceptions.DatasetsError, FileNotFoundError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(f"{name}: these rows can not be streamed ({reason}).") from error
        for number, row in enumerate(table, start=1):
            yield Located(f"{name}, row {number}", row)

    return RowStream(name, f"{repository}@{snapshot.name} {split}", read)


def _jsonl(file: Path, task: Task) -> Iterator[Located]:
    row = 0
    with file.open("rb") as stream:
        for number, data in enumerate(stream, start=1):
            line = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
            if not line.strip():
                continue
            row += 1
            place = f"{file}, row {row}" if row == number else f"{file}, row {row} (line {number})"
            try:
                yield Located(place, json.loads(line.decode("utf-8")))
            except UnicodeDecodeError as error:
                raise UserError(f"{place}: not valid UTF-8 (byte 0x{line[error.start]:02x}).") from None
            except json.JSONDecodeError as error:
                raise UserError(f"{place}: not valid JSON ({error.msg} at column {error.colno}).") from None


def _parquet(file: Path, task: Task) -> Iterator[Located]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            rows = (row for batch in table.iter_batches(batch_size=1000) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield Located(f"{file}, row {number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]}).") from None


def _table(file: Path, task: Task) -> Iterator[Located]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
        try:
            header = next(reader, [])
            for number, values in enumerate((values for values in reader if values), start=1):
                place = f"{file}, row {number} (line {reader.line_num})"
                if len(values) != len(header):
                    raise UserError(f"{place}: has {len(values)} values, but the header names {len(header)} fields.")
                yield Located(place, {name: task.parse(name, v) for name, v in zip(header, values, strict=True)})
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{file}, after line {reader.line_num}: not a valid table ({error}).") from None


LAZY_READERS: dict[str, Callable[[Path, Task], Iterator[Located]]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".csv": _table,
    ".tsv": _table,
}
