"""Write the rows of an Arrow file one by one, with the checksums of its parts; see ``arrow_file``."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from smoa_lightning.data.rows.arrow_columns import column

BATCH = 1024  # rows of a record batch
TAIL = 8  # bytes after the Arrow file
FACTS, SUMS = b"smoa_lightning", "checksums"


class _Sink(io.RawIOBase):
    """Passes bytes on and computes their checksums.

    Args:
        stream: Takes the bytes.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self.position = self.part = self.whole = 0

    def writable(self) -> bool:
        """Arrow may write here."""
        return True

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self.position

    def write(self, content: Any) -> int:
        """Write bytes."""
        with memoryview(content) as view:
            self._stream.write(view)
            self.part, self.whole = zlib.crc32(view, self.part), zlib.crc32(view, self.whole)
            self.position += view.nbytes
            return view.nbytes

    def flush(self) -> None:
        """Do nothing: the owner of the stream flushes it."""

    def end_of_part(self) -> list[int]:
        """Return the position and the checksum of what was written since the last part."""
        found, self.part = [self.position, self.part], 0
        return found


class Writer:
    """Writes rows to a sink, ``BATCH`` of them at a time.

    Args:
        stream: An open file, or anything that has ``write``.
        schema: The columns.
    """

    def __init__(self, stream: Any, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = _Sink(stream)
        self._file = pa.ipc.new_file(self._sink, schema)
        self._rows: list[tuple[Any, ...]] = []
        self._sums: list[list[int]] = []  # the end and the checksum of each batch
        self.count = 0

    def add(self, *values: Any) -> None:
        """Add a row: one value for each column."""
        self._rows.append(values)
        self.count += 1
        if len(self._rows) == BATCH:
            self._flush()

    def _flush(self) -> None:
        self._file.write_batch(self._batch(zip(*self._rows, strict=True)))
        self._sums.append(self._sink.end_of_part())
        self._rows.clear()

    def _batch(self, columns: Iterable[Sequence[Any]]) -> pa.RecordBatch:
        arrays = [column(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def close(self, facts: dict[str, Any]) -> None:
        """Write the remaining rows, the facts and the checksums."""
        if self._rows:
            self._flush()
        text = json.dumps({"count": self.count, SUMS: self._sums, **facts})
        self._file.write_batch(self._batch([] for _ in self._schema), custom_metadata={FACTS: text})
        self._file.close()
        whole, frame = self._sink.whole, self._sink.part
        self._sink.write(b"".join(value.to_bytes(4, "little") for value in (frame, whole)))
