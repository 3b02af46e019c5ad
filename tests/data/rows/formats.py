"""Rows of PIQA, and what writes them in each format."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from smoa_lightning.data.rows.sources import Origin, load_split
from smoa_lightning.data.tasks import PIQA, Row, Task

ROWS = [
    {"goal": f"Köln {n}", "sol1": 'use a "towel", well', "sol2": "two\nlines" if n % 2 else "é", "label": n % 2}
    for n in range(7)
]


def read(path: object, split: str = "train", task: Task = PIQA, **kwargs: object) -> list[Row]:
    origin = Origin("local", path=path if isinstance(path, dict) else str(path))
    return list(load_split(task, split, origin, **kwargs)[0])


def jsonl(rows: list[Row], end: str = "\n") -> bytes:
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode() + end.encode()


def table(rows: list[Row], delimiter: str = ",", end: str = "\n") -> bytes:
    stream = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if end == "\r" else csv.QUOTE_MINIMAL  # that of a line feed in a value
    writer = csv.DictWriter(stream, rows[0], delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def arrow(rows: list[Row], new: Callable = pa.ipc.new_file) -> bytes:
    content, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with new(sink, content.schema) as writer:
        writer.write_table(content)
    return sink.getvalue().to_pybytes()


def parquet(rows: list[Row]) -> bytes:
    stream = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def feather(rows: list[Row]) -> bytes:
    stream = io.BytesIO()
    pa.feather.write_feather(pa.Table.from_pylist(rows), stream, compression="lz4")
    return stream.getvalue()


def zstandard(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}
TEXTS = {
    ".jsonl": jsonl,
    ".ndjson": jsonl,
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".csv": table,
    ".tsv": lambda rows: table(rows, "\t"),
}
TABLES = {
    ".parquet": parquet,
    ".arrow": arrow,
    ".ARROW": lambda rows: arrow(rows, pa.ipc.new_stream),
    ".feather": feather,
}
