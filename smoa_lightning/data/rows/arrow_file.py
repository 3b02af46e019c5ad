"""Tables in Arrow files: written in pieces, read by index from disk, never completely in memory.

A file is an Arrow IPC file and four bytes. Its record batches have ``BATCH`` rows each; the last one may have fewer.
Then comes an empty batch with facts about the table in its metadata. The four bytes are a CRC-32 of the rest.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import mmap
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from smoa_lightning.common.atomic_files import CACHE, replacing
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.arrow_columns import column, numbers

logger = logging.getLogger(__name__)
BATCH = 1024  # rows of a record batch
CHECKED = 64 << 20  # the checksum of a larger file is not compared, since each run would wait for it
RELEASED = 64  # batches that are read before their pages are released
FACTS = b"smoa_lightning"


def key_of(**parts: Any) -> str:
    """Return the SHA-256 of everything that decides a table.

    Args:
        parts: Values for JSON, in any order.

    >>> key_of(a=1, b=[2]) == key_of(b=(2,), a=1) != key_of(a=1, b=[3])
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()).hexdigest()


@functools.cache
def code_digest() -> str:
    """Return the SHA-256 of the code that reads, checks and encodes rows: tables of other versions are not used."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Writer:
    """Writes rows to a sink, ``BATCH`` of them at a time.

    Args:
        sink: A path or an open file.
        schema: The columns.
    """

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = pa.ipc.new_file(sink, schema)
        self._rows: list[tuple[Any, ...]] = []
        self.count = 0

    def add(self, *values: Any) -> None:
        """Add a row: one value for each column."""
        self._rows.append(values)
        self.count += 1
        if len(self._rows) == BATCH:
            self._flush()

    def _flush(self) -> None:
        self._file.write_batch(self._batch(zip(*self._rows, strict=True)))
        self._rows.clear()

    def _batch(self, columns: Iterable[Sequence[Any]]) -> pa.RecordBatch:
        arrays = [column(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def close(self, facts: dict[str, Any]) -> None:
        """Write the remaining rows, and the facts."""
        if self._rows:
            self._flush()
        self._file.write_batch(
            self._batch([] for _ in self._schema), custom_metadata={FACTS: json.dumps({"count": self.count, **facts})}
        )
        self._file.close()


Fill = Callable[[Writer], dict[str, Any]]  # adds the rows, and returns the facts


class ArrowTable:
    """The rows of a file, read from disk on access.

    Args:
        content: The file as a memory map, or the same bytes in memory.
        path: The path of the file, if it has a name.

    Raises:
        ValueError: it is not a complete file of this kind.
    """

    def __init__(self, content: mmap.mmap | pa.Buffer, path: Path | None = None) -> None:
        self._content, self.path = content, path
        reader = pa.ipc.open_file(pa.py_buffer(content).slice(0, len(memoryview(content)) - 4))
        last = reader.num_record_batches - 1
        _, metadata = reader.get_batch_with_custom_metadata(last)
        self.facts: dict[str, Any] = json.loads(metadata[FACTS])
        self.schema = reader.schema
        self._batches: list[pa.RecordBatch] = []
        for number in range(last):
            self._batches.append(reader.get_batch(number))
            self._release_at(number)
        if sum(map(len, self._batches)) != self.facts["count"]:
            raise ValueError("rows are missing")

    def __len__(self) -> int:
        return int(self.facts["count"])

    def place(self, row: int) -> tuple[pa.RecordBatch, int]:
        """Return the batch that holds a row, and the row's position in it."""
        number, position = divmod(int(row), BATCH)
        return self._batches[number], position

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all batches; copy what you need from a batch before you ask for the next one."""
        for number, batch in enumerate(self._batches):
            yield batch
            self._release_at(number)
        self.release()

    def column(self, name: str) -> np.ndarray:
        """Return a column of numbers or truth values in memory."""
        parts = [numbers(batch.column(name)).copy() for batch in self.batches()]
        return np.concatenate(parts) if parts else np.zeros(0, int)

    def release(self) -> None:
        """Remove the pages read so far from this process; they are read again when they are needed.

        The operating system does this only when memory is short, and counts them as memory of the process until then.
        """
        if isinstance(self._content, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._content.madvise(mmap.MADV_DONTNEED)

    def _release_at(self, number: int) -> None:
        """Release the pages after every ``RELEASED`` batches."""
        if number % RELEASED == RELEASED - 1:
            self.release()

    def __reduce__(self) -> tuple[Any, ...]:
        """For worker processes that share no memory: the path of the table, or its content if it has no path."""
        return (_open, (self.path,)) if self.path else (ArrowTable, (pa.py_buffer(bytes(memoryview(self._content))),))


def _open(path: Path) -> ArrowTable:
    with path.open("rb") as stream:
        return ArrowTable(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), path)


def _checked(path: Path) -> ArrowTable:
    """Return the table of a file after a quick check that it is complete.

    Raises:
        ValueError: it is not.
    """
    size = path.stat().st_size
    if 4 < size <= CHECKED:
        with path.open("rb") as stream:
            if _checksum(stream, size - 4) != stream.read(4):
                raise ValueError("its checksum is wrong")
    return _open(path)


def _checksum(stream: BinaryIO, size: int) -> bytes:
    checksum = 0
    while size:
        piece = stream.read(min(size, 1 << 20))
        checksum, size = zlib.crc32(piece, checksum), size - len(piece)
    return checksum.to_bytes(4, "little")


def _write(path: Path, schema: pa.Schema, fill: Fill) -> None:
    with path.open("w+b") as stream:
        writer = Writer(stream, schema)
        writer.close(fill(writer))
        size = stream.tell()
        stream.seek(0)
        checksum = _checksum(stream, size)
        stream.seek(size)
        stream.write(checksum)


# ---- tables in memory, in a temporary file, in the cache


def in_memory(schema: pa.Schema, fill: Fill) -> ArrowTable:
    """Make a table of a few rows in memory."""
    sink = pa.BufferOutputStream()
    writer = Writer(sink, schema)
    writer.close(fill(writer))
    sink.write(b"\0\0\0\0")
    return ArrowTable(sink.getvalue())


def in_scratch_file(schema: pa.Schema, fill: Fill) -> ArrowTable:
    """Make a table in a temporary file that has no name, and that is deleted when the process ends.

    Raises:
        UserError: there is no room for it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="smoa_lightning-") as folder:
            path = Path(folder) / "table.arrow"
            _write(path, schema, fill)
            table = _open(path)
    except OSError as error:
        raise UserError(
            f"rows cannot be written to {tempfile.gettempdir()} ({error.strerror or error}); set TMPDIR to a folder"
            " with room."
        ) from error
    table.path = None  # the memory map still works when the name is deleted
    return table


def in_cache(folder: Path, key: str, schema: pa.Schema, fill: Fill) -> ArrowTable:
    """Return the cached table of a key, or make it. The cache never holds an incomplete table.

    If several processes need the table at the same time, one makes it and the others wait. A damaged file is reported
    and made again. If the folder cannot be written to, that is reported, and the table is in a temporary file.
    """
    path = folder / f"{key}.arrow"
    table = _cached_table(path, schema)
    if table is not None:
        logger.debug("%d cached rows in %s", len(table), path)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                table = _cached_table(path, schema)  # a different process may have made it while this one waited
                table = _new_table(path, schema, fill) if table is None else table
        except OSError as error:
            reason = error.strerror or error
            logger.warning("rows cannot be saved in %s (%s); set %s to a folder with room.", folder, reason, CACHE)
            table = in_scratch_file(schema, fill)
    return table


def _cached_table(path: Path, schema: pa.Schema) -> ArrowTable | None:
    """Return the table in a file, None if there is no file or it cannot be used."""
    try:
        table = _checked(path)
        if table.schema != schema:
            raise ValueError("it has different columns")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        logger.warning("%s is damaged or not a file of rows (%s); it is made again.", path, error)
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return table


def _new_table(path: Path, schema: pa.Schema, fill: Fill) -> ArrowTable:
    with replacing(path) as temporary:
        _write(temporary, schema, fill)
        table = _open(temporary)  # before the file gets its name: a user may empty the folder at any time
    table.path = path
    return table


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time make a file; on a file system without locks, all of them at once."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=3)
    except Timeout:
        logger.warning("another process is making %s; this process waits for it.", path.name)
        lock.acquire()
    except (NotImplementedError, OSError):
        yield
        return
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
