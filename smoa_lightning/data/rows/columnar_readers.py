"""Readers of Arrow tables: Parquet, Arrow and Feather files, and ``save_to_disk`` folders of ``datasets``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.located import DataFile, Located, refuse_duplicate_columns
from smoa_lightning.data.rows.locations import exists, is_url, joined, opened, plain
from smoa_lightning.data.tasks import Task
from smoa_lightning.data.tasks.label_fields import ClassLabel

PIECE = 1000  # rows that are in memory at a time


def read_parquet(file: DataFile, task: Task) -> Iterator[Located]:
    """Yield the rows of a Parquet file."""
    from pyarrow.parquet import ParquetFile

    with _readable(file, "Parquet"), opened(file.name) as stream:
        # without these two arguments a whole row group is in memory, and some files have only one row group
        table = ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
        yield from _located(file.name, task, table.schema_arrow, table.iter_batches(batch_size=PIECE))


def read_arrow(file: DataFile, task: Task) -> Iterator[Located]:
    """Yield the rows of an Arrow file with or without an index at its end, or of a Feather file."""
    import pyarrow as pa
    from pyarrow import feather

    with _readable(file, "Arrow"), opened(file.name) as stream:
        start = stream.peek(6)[:6]
        # a memory map, since the whole file may be one batch
        source = stream if is_url(file.name) else pa.memory_map(plain(file.name))
        batches: Iterable[Any]
        if start == b"ARROW1":
            reader = pa.ipc.open_file(source)
            schema = reader.schema
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        elif start[:4] == b"FEA1":
            table = feather.read_table(source)
            schema, batches = table.schema, table.to_batches()
        else:
            batches = reader = pa.ipc.open_stream(source)
            schema = reader.schema
        yield from _located(file.name, task, schema, (part for batch in batches for part in _pieces(batch)))


@contextlib.contextmanager
def _readable(file: DataFile, kind: str) -> Iterator[None]:
    """Raise an error that names the file if pyarrow cannot read it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.name}: not a readable {kind} file ({str(error).splitlines()[0]}).") from None


def _pieces(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, PIECE) for start in range(0, len(batch), PIECE))


def _located(name: str, task: Task, schema: Any, batches: Iterable[Any]) -> Iterator[Located]:
    refuse_duplicate_columns(name, schema.names)
    numbered = numbered_names(task, label_names(schema.metadata))
    rows = (row for batch in batches for row in _rows(batch))
    for number, row in enumerate(rows, start=1):
        yield Located(f"{name}, row {number}", with_names(row, numbered))


def _rows(batch: Any) -> list[dict[str, Any]]:
    columns = [_values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    """Return the values of a column. A value without a Python type stays an Arrow value, and no field accepts it."""
    import pyarrow as pa

    try:
        values = column.to_pylist()
        return [value and json.loads(value) for value in values] if isinstance(column.type, pa.JsonType) else values
    except (ValueError, OverflowError, pa.ArrowException):  # for example a time in the year 11476
        return list(column)


# ---- columns ``ClassLabel`` of the library datasets


def label_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the names of the classes of each column ``ClassLabel``, from the metadata of an Arrow schema."""
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("names")
        }
    return {}


def numbered_names(task: Task, names: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the columns with classes whose names are numbers, but not those of their positions, such as 0, 1, 10, 2.

    The file holds positions. If the names of the task are numbers too, a number in a row is taken as a name.
    """
    numbered = {}
    for field, kind in task.schema.items():
        column = str(task.fields.get(field, field))
        if not isinstance(kind, ClassLabel) or not all(name.isdecimal() for name in kind.names):
            continue
        own = list(names.get(column, []))
        if all(name.isdecimal() for name in own) and own != [str(position) for position in range(len(own))]:
            numbered[column] = own
    return numbered


def with_names(row: dict[str, Any], numbered: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return a row with the name of its class in place of the position, in the columns that are given."""
    for column, names in numbered.items():
        position = row.get(column)
        if isinstance(position, int) and 0 <= position < len(names):
            row = {**row, column: names[position]}
    return row


# ---- folders of the library datasets


def is_saved(folder: str) -> bool:
    """Return whether a folder holds one table of ``save_to_disk``."""
    return exists(joined(folder, "state.json")) and exists(joined(folder, "dataset_info.json"))


def read_saved(folder: str, task: Task) -> Iterator[Located]:
    """Yield the rows of a folder of ``save_to_disk``.

    Raises:
        UserError: it is damaged.
    """
    import datasets

    try:
        table = datasets.load_from_disk(folder)
    except Exception as error:  # there are many kinds: missing files, JSON, Arrow
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: not a readable folder of save_to_disk ({reason}).") from error
    tables = table.with_format("arrow").iter(batch_size=PIECE)
    yield from _located(
        folder, task, table.features.arrow_schema, (batch for part in tables for batch in part.to_batches())
    )
