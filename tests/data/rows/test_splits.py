from __future__ import annotations

import zlib

import numpy as np
import pytest

from smoa_lightning.data.rows import splits
from smoa_lightning.data.rows.splits import default_selection_rows


def hold_out(groups, num_selection, seed):
    numbers = np.array([zlib.crc32(group.encode()) for group in groups], dtype=np.uint64)
    return tuple(rows.tolist() for rows in splits.hold_out(numbers, num_selection, seed))


def subset(rows, limit, seed):
    return splits.subset(np.array(rows), limit, seed).tolist()


GROUPS = [f"g{i % 13}" for i in range(100)] + [f"single {i}" for i in range(50)]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_on_both_sides(seed):
    training, selection = hold_out(GROUPS, 20, seed)
    assert sorted(training + selection) == list(range(150))
    assert len(selection) == 20
    assert not {GROUPS[row] for row in training} & {GROUPS[row] for row in selection}


def test_hold_out_depends_on_the_seed():
    assert hold_out(GROUPS, 20, 0) == hold_out(GROUPS, 20, 0)
    assert hold_out(GROUPS, 20, 0) != hold_out(GROUPS, 20, 1)


def test_groups_that_are_too_big_stay_in_training():
    training, selection = hold_out(["big"] * 10 + ["small"], 3, 0)
    assert selection == [10]
    assert len(training) == 10


def test_default():
    assert [default_selection_rows(count) for count in (5, 999, 16113)] == [1, 49, 500]


def test_subset():
    rows = list(range(0, 100, 2))
    small, large = subset(rows, 10, 0), subset(rows, 20, 0)
    assert small == sorted(small)
    assert set(small) < set(large) < set(rows)
    assert subset(rows, None, 0) == subset(rows, 50, 0) == rows
    assert subset(rows, 10, 1) != small
