"""Tables in Arrow files: written piece by piece, read by index from disk, never whole in memory.

A file is an Arrow IPC file and four bytes. Its record batches have ``BATCH`` rows each, the last one may have fewer.
After them comes an empty batch whose metadata holds facts about the whole. The four bytes are a CRC-32 of the rest.
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
CHECKED = 64 << 20  # the checksum of a larger file is not compared: a run would wait for it at each start
RELEASED = 64  # batches that are read before their pages are released
FACTS = b"smoa_lightning"


def key_of(**parts: Any) -> str:
    """Return the SHA-256 of everything that decides a table.

    Args:
        parts: Values that JSON can write. The order does not matter.

    >>> key_of(a=1, b=[2]) == key_of(b=(2,), a=1) != key_of(a=1, b=[3])
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()).hexdigest()


@functools.cache
def code_digest() -> str:
    """Return the SHA-256 of the code that reads, checks and encodes rows: what an older version made is not taken."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Writer:
    """Writes rows to a sink, ``BATCH`` of them at a time.

    Args:
        sink: What pyarrow writes to: a path or an open file.
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
        """Write what is left, and the facts."""
        if self._rows:
            self._flush()
        self._file.write_batch(
            self._batch([] for _ in self._schema), custom_metadata={FACTS: json.dumps({"count": self.count, **facts})}
        )
        self._file.close()


Fill = Callable[[Writer], dict[str, Any]]  # adds the rows, and returns the facts


class ArrowTable:
    """The rows of a file, read from disk where they are asked for.

    Args:
        content: The file as a memory map, or the same bytes in memory.
        path: Where the file is, if it has a name.

    Raises:
        ValueError: it is not a whole file of this kind.
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
        """Yield all batches; what is taken from one must be copied before the next is asked for."""
        for number, batch in enumerate(self._batches):
            yield batch
            self._release_at(number)
        self.release()

    def column(self, name: str) -> np.ndarray:
        """Return a column of numbers or truth values in memory."""
        parts = [numbers(batch.column(name)).copy() for batch in self.batches()]
        return np.concatenate(parts) if parts else np.zeros(0, int)

    def release(self) -> None:
        """Take the pages that were read so far out of this process; they are read again where they are needed.

        The system would do that only when memory runs out, and count them as memory of the process until then.
        """
        if isinstance(self._content, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._content.madvise(mmap.MADV_DONTNEED)

    def _release_at(self, number: int) -> None:
        """Release what was read after every so many batches."""
        if number % RELEASED == RELEASED - 1:
            self.release()

    def __reduce__(self) -> tuple[Any, ...]:
        """For worker processes that do not share memory: by name, or by content where there is none."""
        return (_open, (self.path,)) if self.path else (ArrowTable, (pa.py_buffer(bytes(memoryview(self._content))),))


def _open(path: Path) -> ArrowTable:
    with path.open("rb") as stream:
        return ArrowTable(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), path)


def _checked(path: Path) -> ArrowTable:
    """Return the table of a file that is whole, as far as that is quickly told.

    Raises:
        ValueError: it is not.
    """
    size = path.stat().st_size
    if 4 < size <= CHECKED:
        with path.open("rb") as stream:
            if _checksum(stream, size - 4) != stream.read(4):
                raise ValueError("its checksum is another")
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


# ---- where a table is kept


def in_memory(schema: pa.Schema, fill: Fill) -> ArrowTable:
    """Make a table of a few rows."""
    sink = pa.BufferOutputStream()
    writer = Writer(sink, schema)
    writer.close(fill(writer))
    sink.write(b"\0\0\0\0")
    return ArrowTable(sink.getvalue())


def in_scratch_file(schema: pa.Schema, fill: Fill) -> ArrowTable:
    """Make a table in a temporary file that has no name any more, and is gone when the process ends.

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
    table.path = None  # the memory map outlives the name
    return table


def in_cache(folder: Path, key: str, schema: pa.Schema, fill: Fill) -> ArrowTable:
    """Return the table that is kept under a key, or make it, whole or not at all.

    Of several processes that want it at once, one makes it and the others wait. A file that is damaged is reported in
    one sentence and made anew. So is a folder that cannot be written to; the table is then one in a temporary file.
    """
    path = folder / f"{key}.arrow"
    table = _kept(path, schema)
    if table is not None:
        logger.debug("%d cached rows in %s", len(table), path)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(path):
                table = _kept(path, schema)  # somebody else may have made it meanwhile
                table = _made(path, schema, fill) if table is None else table
        except OSError as error:
            reason = error.strerror or error
            logger.warning("rows cannot be kept in %s (%s); set %s to a folder with room.", folder, reason, CACHE)
            table = in_scratch_file(schema, fill)
    return table


def _kept(path: Path, schema: pa.Schema) -> ArrowTable | None:
    """Return the table in a file, None where there is none or it cannot be used."""
    try:
        table = _checked(path)
        if table.schema != schema:
            raise ValueError("it has other columns")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        logger.warning("%s is damaged or no file of rows (%s); it is made anew.", path, error)
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return table


def _made(path: Path, schema: pa.Schema, fill: Fill) -> ArrowTable:
    with replacing(path) as temporary:
        _write(temporary, schema, fill)
        table = _open(temporary)  # before it takes its name: somebody may empty the folder
    table.path = path
    return table


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time make a file; where the file system has no locks, all of them."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=3)
    except Timeout:
        logger.warning("another process is making %s; waiting for it.", path.name)
        lock.acquire()
    except (NotImplementedError, OSError):
        yield
        return
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
