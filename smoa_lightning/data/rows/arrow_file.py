"""Tables in Arrow files: written in pieces, read by index from disk, never completely in memory.

A file is an Arrow IPC file and eight bytes. Its record batches have ``BATCH`` rows each; the last one may have fewer.
Then comes an empty batch with facts about the table in its metadata, such as the end and the CRC-32 of each batch.
The eight bytes are the CRC-32 of everything that is no batch of rows, and the CRC-32 of the rest.

The checksum of a small file is compared when it is opened. For a large file each run would wait for that, so that each
of its batches is compared when it is first read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import mmap
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from smoa_lightning.common.atomic_files import CACHE, replacing
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.arrow_columns import numbers
from smoa_lightning.data.rows.arrow_writer import BATCH, FACTS, SUMS, TAIL, Writer

logger = logging.getLogger(__name__)
CHECKED = 64 << 20  # bytes of the largest file that is compared with its checksum when it is opened
RELEASED = 64  # batches that are read before their pages are released


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


Fill = Callable[[Writer], dict[str, Any]]  # adds the rows, and returns the facts


class ArrowTable:
    """The rows of a file, read from disk on access.

    Args:
        content: The file as a memory map, or the same bytes in memory.
        path: The path of the file, if it has a name.
        checked: Whether the checksum of the whole file was compared already.

    Raises:
        ValueError: it is not a complete file of this kind.
    """

    def __init__(self, content: mmap.mmap | pa.Buffer, path: Path | None = None, checked: bool = False) -> None:
        self._content, self.path = content, path
        size = len(memoryview(content)) - TAIL
        reader = pa.ipc.open_file(pa.py_buffer(content).slice(0, size))
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
        parts: list[list[int]] = self.facts.pop(SUMS)
        self._ends, self._sums = [0, *(end for end, _ in parts)], [checksum for _, checksum in parts]
        self._checked = bytearray(last) if not checked else bytearray(b"\1" * last)
        if len(self._sums) != last or self._crc(self._ends[-1], size) != self._stored(size):
            raise ValueError("its checksum is wrong")

    def __len__(self) -> int:
        return int(self.facts["count"])

    def place(self, row: int) -> tuple[pa.RecordBatch, int]:
        """Return the batch that holds a row, and the row's position in it."""
        number, position = divmod(int(row), BATCH)
        self._check(number)
        return self._batches[number], position

    def _check(self, number: int) -> None:
        """Compare a batch with its checksum when it is first read.

        Raises:
            UserError: the batch is damaged; the file is removed, so that the next run makes it again.
        """
        if self._checked[number]:
            return
        if self._crc(*self._ends[number : number + 2]) != self._sums[number]:
            if self.path is not None:
                with contextlib.suppress(OSError):
                    self.path.unlink()
            name = "a temporary file of rows" if self.path is None else f"{self.path}"
            raise UserError(
                f"{name} was damaged: the checksum of rows {number * BATCH} to"
                f" {number * BATCH + len(self._batches[number]) - 1} is wrong; start the same command again, and the"
                " file is made again."
            )
        self._checked[number] = 1
        if not sum(self._checked) % RELEASED:
            self.release()

    def _crc(self, start: int, end: int) -> int:
        with memoryview(self._content) as view:
            return zlib.crc32(view[start:end])

    def _stored(self, position: int) -> int:
        with memoryview(self._content) as view:
            return int.from_bytes(view[position : position + 4], "little")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all batches; copy what you need from a batch before you ask for the next one."""
        for number, batch in enumerate(self._batches):
            self._check(number)
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


def _open(path: Path, checked: bool = False) -> ArrowTable:
    with path.open("rb") as stream:
        return ArrowTable(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), path, checked)


def _checked(path: Path) -> ArrowTable:
    """Return the table of a file after a quick check that it is complete and was not changed.

    Raises:
        ValueError: it is not.
    """
    small = TAIL < path.stat().st_size <= CHECKED
    if small:
        content = path.read_bytes()
        if zlib.crc32(memoryview(content)[:-TAIL]).to_bytes(4, "little") != content[-4:]:
            raise ValueError("its checksum is wrong")
    return _open(path, checked=small)


def _write(path: Path, schema: pa.Schema, fill: Fill) -> None:
    with path.open("wb") as stream:
        writer = Writer(stream, schema)
        writer.close(fill(writer))


# ---- tables in memory, in a temporary file, in the cache


def in_memory(schema: pa.Schema, fill: Fill) -> ArrowTable:
    """Make a table of a few rows in memory."""
    sink = io.BytesIO()
    writer = Writer(sink, schema)
    writer.close(fill(writer))
    return ArrowTable(pa.py_buffer(sink.getvalue()))


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
            with locked(path):
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
def locked(path: Path) -> Iterator[None]:
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
