"""The checked rows of a split as a sequence that reads each row from its table."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from smoa_lightning.common.console import no_bar
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.arrow_file import ArrowTable
from smoa_lightning.data.rows.arrow_writer import Writer
from smoa_lightning.data.rows.lazy_sequence import LazySequence
from smoa_lightning.data.rows.located import Located
from smoa_lightning.data.tasks import CountError, Row, RowError, Task

# A row is one JSON text. Types that Arrow infers from the rows of users would change or refuse some values.
SCHEMA = pa.schema([("row", pa.large_string()), ("group", pa.uint64())])


MOST_IGNORED = 100  # columns that are remembered; rows of JSON may have any number of different keys


class RowTable(LazySequence[Row]):
    """The checked rows of a split.

    Args:
        table: A table from ``write_rows``.
    """

    def __init__(self, table: ArrowTable) -> None:
        self._table = table
        self.sha256: str = table.facts["sha256"]
        self.num_bad: int = table.facts["bad_rows"]
        self.ignored: list[str] = table.facts["ignored"]
        self.counts: dict[str, int] = table.facts["counts"]

    def __len__(self) -> int:
        return len(self._table)

    def item(self, number: int) -> Row:
        """Return a row by its number."""
        row: Row = json.loads(self.text(number))
        return row

    def text(self, number: int) -> str:
        """Return a row as JSON with sorted keys: equal rows have equal texts."""
        batch, place = self._table.place(number)
        return str(batch.column(0)[place].as_py())

    def __iter__(self) -> Iterator[Row]:
        for batch in self._table.batches():
            yield from map(json.loads, batch.column(0).to_pylist())

    @property
    def groups(self) -> np.ndarray:
        """A number for each row, (N,) uint64; rows of one group have the same number."""
        return self._table.column("group")

    def release(self) -> None:
        """Remove the pages read so far from this process."""
        self._table.release()


def write_rows(writer: Writer, task: Task, located: Iterable[Located], skip: bool = False) -> dict[str, Any]:
    """Check raw rows against the schema of a task and write the rows that each becomes, see ``Task.rows_of``.

    Args:
        writer: Takes the rows.
        task: The task.
        located: The raw rows.
        skip: Whether a bad row is counted and left out.

    Returns:
        ``sha256`` of the rows as JSON lines with sorted keys, the number of ``bad_rows``, the ``ignored`` columns,
        which hold values that the task does not read, and the ``counts`` of the task's remarks.

    Raises:
        UserError: the place and field of the first bad row, unless ``skip``.
    """
    digest, bad_rows, ignored, counts = hashlib.sha256(), 0, set[str](), Counter[str]()
    for place, raw in tqdm(located, desc="reading rows", unit="row", delay=3, leave=False, disable=no_bar()):
        try:
            checked = task.check(raw)
            rows = task.expanded(checked)
        except RowError as error:
            if not skip or isinstance(error, CountError):
                raise UserError(f"{place}: {error}.") from None
            bad_rows += 1
            continue
        if len(ignored) < MOST_IGNORED:
            ignored |= task.unread(raw)
        if task.remarks is not None:
            counts.update(task.remarks.count(checked))
        group = group_number(task.group(checked))
        for row in rows:
            text = json.dumps(row, sort_keys=True, ensure_ascii=False)
            digest.update(text.encode() + b"\n")
            writer.add(text, group)
    return {"sha256": digest.hexdigest(), "bad_rows": bad_rows, "ignored": sorted(ignored), "counts": dict(counts)}


def group_number(group: str) -> int:
    """Return a 64-bit number for a group. With ten million groups, two share a number in 1 case of 400,000."""
    return int.from_bytes(hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
