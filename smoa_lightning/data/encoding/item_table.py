"""Encoded items of a part as a sequence that reads each item from its table.

The token rows of an item are saved one after the other. Of the labels only the start of the targets is saved: the
labels are -100 before it, and equal to the tokens after it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from smoa_lightning.data.encoding.items import IGNORED, ChoiceItem, LabelledItem, LazyItems, ReplyItem, TokenRow
from smoa_lightning.data.rows.arrow_columns import numbers, offsets
from smoa_lightning.data.rows.arrow_file import ArrowTable

Kind = Literal["training", "choices", "replies", "labels"]

INTEGERS = pa.list_(pa.int32())
ROW = [("ids", INTEGERS), ("start", pa.int32()), ("truncated", pa.bool_())]
SCHEMAS: dict[Kind, pa.Schema] = {
    "training": pa.schema(ROW),
    "replies": pa.schema([*ROW, ("row", pa.int64()), ("response", pa.large_string()), ("answer", pa.large_string())]),
    "labels": pa.schema(
        [
            *(("ids", INTEGERS), ("types", INTEGERS), ("label", pa.float64())),
            *(("row", pa.int64()), ("truncated", pa.bool_())),
        ]
    ),
    "choices": pa.schema(
        [
            *(("ids", INTEGERS), ("lengths", INTEGERS), ("starts", INTEGERS), ("truncated", pa.list_(pa.bool_()))),
            *(("num_bytes", INTEGERS), ("label", pa.int32()), ("row", pa.int64())),
        ]
    ),
}

RELEASED = 256  # items that are read before their pages are released


def columns_of(item: Any) -> tuple[Any, ...]:
    """Return an item as the values of its columns."""
    if isinstance(item, TokenRow):
        return item.ids, _start(item), item.truncated
    if isinstance(item, ReplyItem):
        return *columns_of(item.row), item.index, item.response, item.answer
    if isinstance(item, LabelledItem):
        return item.ids, item.types, item.label, item.row, item.truncated
    assert isinstance(item, ChoiceItem)
    ids = [token for row in item.rows for token in row.ids]
    lengths, starts = [len(row) for row in item.rows], [_start(row) for row in item.rows]
    return ids, lengths, starts, [row.truncated for row in item.rows], item.num_bytes, item.label, item.row


def _start(row: TokenRow) -> int:
    """Return where the targets of a row begin."""
    return row.labels.count(IGNORED)


def _row(ids: tuple[int, ...], start: int, truncated: bool) -> TokenRow:
    return TokenRow(ids, (IGNORED,) * start + ids[start:], truncated)


class ItemTable(LazyItems):
    """The encoded items of a part.

    Args:
        table: Their columns, see ``columns_of``.
        kind: The kind of the items.
    """

    def __init__(self, table: ArrowTable, kind: Kind) -> None:
        self._table, self._kind = table, kind
        self.statistics: dict[str, Any] = table.facts["statistics"]
        self.system_text: str | None = table.facts.get("system_text")  # that all training rows share
        self._read = 0

    def __len__(self) -> int:
        return len(self._table)

    def item(self, number: int) -> Any:
        """Return an item by its number."""
        batch, place = self._table.place(number)
        self._read += 1
        if self._read % RELEASED == 0:
            self._table.release()
        values = [column[place].as_py() for column in batch.columns]
        if self._kind == "choices":
            return _choice_item(*values)
        if self._kind == "labels":
            return LabelledItem(tuple(values[0]), tuple(values[1]), *values[2:])
        row = _row(tuple(values[0]), *values[1:3])
        return row if self._kind == "training" else ReplyItem(row, row.ids[: values[1]], *values[3:])

    @cached_property
    def lengths(self) -> np.ndarray:
        """The length of each item in tokens, for a choice item the length of its longest row, (N,) int32."""
        if self._kind != "choices":
            return self._sizes("ids")
        parts = [
            np.maximum.reduceat(numbers(column.values), offsets(column)[:-1])
            for column in (batch.column("lengths") for batch in self._table.batches())
        ]
        return np.concatenate([*parts, np.zeros(0, np.int32)])

    @cached_property
    def num_rows(self) -> np.ndarray:
        """How many token rows each item has, (N,) int64."""
        return self._sizes("lengths").astype(np.int64) if self._kind == "choices" else super().num_rows

    @property
    def starts(self) -> np.ndarray:
        """Where the targets of each training row begin, (N,) int32."""
        return self._table.column("start")

    @property
    def labels(self) -> np.ndarray:
        """The label of each labelled item, (N,) float64."""
        return self._table.column("label")

    @property
    def truncated(self) -> np.ndarray:
        """Whether each training row was cut, (N,) bool."""
        return self._table.column("truncated")

    def _sizes(self, name: str) -> np.ndarray:
        parts = [np.diff(offsets(batch.column(name))) for batch in self._table.batches()]
        return np.concatenate([*parts, np.zeros(0, np.int32)])


def _choice_item(
    ids: list[int],
    lengths: list[int],
    starts: list[int],
    truncated: list[bool],
    num_bytes: list[int],
    label: int,
    row: int,
) -> ChoiceItem:
    ends = np.cumsum(lengths).tolist()
    parts = [tuple(ids[end - length : end]) for length, end in zip(lengths, ends, strict=True)]
    rows = tuple(_row(*values) for values in zip(parts, starts, truncated, strict=True))
    return ChoiceItem(rows, tuple(num_bytes), label, row)
