"""Encoded items come back from their table as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smoa_lightning.data.encoding.encode_examples import PartStatistics
from smoa_lightning.data.encoding.item_table import SCHEMAS, ItemTable, columns_of
from smoa_lightning.data.encoding.items import IGNORED, ChoiceItem, ReplyItem, TokenRow, lengths_of, num_rows_of
from smoa_lightning.data.encoding.mixed_items import MixedItems
from smoa_lightning.data.rows.arrow_file import in_cache
from smoa_lightning.data.rows.arrow_writer import Writer

ROWS = [
    TokenRow((5, 6, 7), (IGNORED, 6, 7), truncated=True),
    TokenRow((300_000,), (IGNORED,)),
    TokenRow((2**31 - 1, 1), (2**31 - 1, 1)),
    TokenRow((4, 1, 0), (IGNORED, IGNORED, 0)),
]
CHOICES = [
    ChoiceItem((ROWS[0], ROWS[1]), (5, 6), label=1, row=10),
    ChoiceItem((ROWS[1], ROWS[0], ROWS[3]), (1, 2, 3), label=0, row=2**40),
    ChoiceItem((ROWS[1],), (1,), label=0, row=0),
]
REPLIES = [
    ReplyItem(ROWS[0], (5,), 3, 'the café’s\n"broom" \0 \U0001f600', None),
    ReplyItem(ROWS[2], (), 0, "", "42"),
]


def table(folder: Path, kind: str, items: list) -> ItemTable:
    def fill(writer: Writer) -> dict:
        for item in items:
            writer.add(*columns_of(item))
        return {"statistics": {"rows": len(items)}}

    return ItemTable(in_cache(folder, kind, SCHEMAS[kind], fill), kind)


@pytest.mark.parametrize(
    ("kind", "items"),
    [("training", ROWS), ("choices", CHOICES), ("replies", REPLIES), ("training", []), ("choices", [])],
)
def test_items_come_back_as_they_were(tmp_path: Path, kind: str, items: list) -> None:
    items = items * 700  # of more than one record batch
    for _ in range(2):
        found = table(tmp_path, kind, items)
        assert list(found) == found[:] == items
        assert len(found) == len(items)
        for one, two in zip(found[:4], items, strict=False):
            assert hash(one) == hash(two)  # tuples, not lists or arrays, all the way down
            assert repr(one) == repr(two)  # True is not 1
        assert found.lengths.tolist() == lengths_of(found).tolist() == lengths_of(items).tolist() == [*map(len, items)]
        assert num_rows_of(found).tolist() == num_rows_of(items).tolist()
        assert found.statistics == {"rows": len(items)}


def test_places(tmp_path: Path) -> None:
    found = table(tmp_path, "training", ROWS)
    assert [found[-1], found[-4]] == [ROWS[3], ROWS[0]]
    assert found[1:3] == ROWS[1:3]
    for index in (4, -5):
        with pytest.raises(IndexError):
            found[index]


def test_a_mixture_counts_as_its_rows_do(tmp_path: Path) -> None:
    tables = {"a": table(tmp_path / "a", "training", ROWS), "b": table(tmp_path / "b", "training", ROWS[:2])}
    chosen = [("a", 3), ("b", 0), ("a", 2), ("b", 0)]
    mixed = MixedItems(tables, np.array([0, 1, 0, 1], np.int16), np.array([3, 0, 2, 0]))
    expected = PartStatistics(num_rows=4)
    for name, row in chosen:
        expected.add(tables[name][row], clean=True)
    assert list(mixed) == [tables[name][row] for name, row in chosen]
    assert mixed.lengths.tolist() == [3, 3, 2, 3]
    assert mixed.statistics() == expected.as_dict()
    assert mixed.num_rows_of_tasks() == {"a": 2, "b": 2}
