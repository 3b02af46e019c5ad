"""The training rows of a mixture of tasks."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from smoa_lightning.data.encoding.encode_examples import PartStatistics
from smoa_lightning.data.encoding.item_table import ItemTable
from smoa_lightning.data.encoding.items import LazyItems, TokenRow


class MixedItems(LazyItems):
    """Training rows of several tasks.

    Args:
        tables: Task -> its encoded training rows.
        tasks: The number of the task of each row, (N,).
        positions: The position of each row in the table of its task, (N,).
    """

    def __init__(self, tables: Mapping[str, ItemTable], tasks: np.ndarray, positions: np.ndarray) -> None:
        self._tables, self._tasks, self._positions = dict(tables), tasks, positions
        self._in_order = list(tables.values())
        self._lengths = self._mixed_column([items.lengths for items in self._in_order])

    def _mixed_column(self, columns: list[np.ndarray]) -> np.ndarray:
        """Return the value of each row of the mixture, from one column for each task."""
        mixed = np.zeros(len(self._tasks), columns[0].dtype)
        for number, column in enumerate(columns):
            own = self._tasks == number
            mixed[own] = column[self._positions[own]]
        return mixed

    @property
    def lengths(self) -> np.ndarray:
        """The length of each row in tokens, (N,) int32."""
        return self._lengths

    def item(self, number: int) -> TokenRow:
        """Return a row by its number."""
        row: TokenRow = self._in_order[self._tasks[number]].item(self._positions[number])
        return row

    def num_rows_of_tasks(self) -> dict[str, int]:
        """Return the number of rows of each task."""
        counts = np.bincount(self._tasks, minlength=len(self._tables)).tolist()
        return {name: count for name, count in zip(self._tables, counts, strict=True) if count}

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of the mixture; skipped rows and merged tokens are counted for each task only."""
        starts = self._mixed_column([items.starts for items in self._in_order])
        truncated = self._mixed_column([items.truncated for items in self._in_order])
        targets = int((self._lengths - np.maximum(starts, 1)).sum(dtype=np.int64))
        lengths = array("i", self._lengths.tobytes())
        return PartStatistics(len(self), 0, int(truncated.sum()), 0, targets, lengths).as_dict()
