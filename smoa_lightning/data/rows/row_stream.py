"""Rows of a file or of a hub snapshot, read one after the other as they are asked for, with the place of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.rows.readers import LAZY_READERS, Located, NotUtf8Error, place
from smoa_lightning.data.rows.sources import hub_rows
from smoa_lightning.data.tasks import Task

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
    return RowStream(str(file), _identity(file), lambda: _rows(file, task))


def _identity(file: Path) -> str:
    """Return name, size and a digest of the first and the last million bytes: the whole file may take hours to read."""
    size, digest = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(stream.read(EDGE))
        stream.seek(max(0, size - EDGE))
        digest.update(stream.read(EDGE))
    return f"{file.name}, {size} bytes, {digest.hexdigest()}"


def _rows(file: Path, task: Task) -> Iterator[Located]:
    """Yield the rows of a file; a line that is not UTF-8 is named as a row that breaks its schema is."""
    row = 1
    try:
        for located in LAZY_READERS[file.suffix](file, task):
            yield located
            row += 1
    except NotUtf8Error as error:
        if file.suffix == ".jsonl":
            raise UserError(f"{place(file, row, error.line)}: not valid UTF-8 (byte {error.byte}).") from None
        raise UserError(f"{file}, after line {error.line - 1}: not a valid table ({error.reason}).") from None


def hub_stream(snapshot: Path, repository: str, task: Task, split: str) -> RowStream:
    """Return the rows of a split of a data set's snapshot folder, see ``sources.fetch``.

    Raises:
        UserError: on the first row, where the snapshot has no such split.
    """
    return RowStream(
        f"{repository}@{snapshot.name[:12]} {split}",
        f"{repository}@{snapshot.name} {split}",
        lambda: hub_rows(task, split, snapshot, repository, streaming=True),
    )
