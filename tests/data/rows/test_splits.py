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


@pytest.mark.parametrize(
    ("groups", "number", "is_default", "sentence"),
    [
        (range(12), 40, False, " is 40, but there are 12 training rows: at most 11 can be held out"),
        (
            [0, 0, 0, 1, 1],
            5,
            False,
            " is 5, but there are 5 training rows: at most 3 can be held out, since rows of one group stay together",
        ),
        (
            [0, 0, 0, 1, 1],
            1,
            True,
            " is 1 by default, but the smallest group of training rows has 2, which stay together: "
            "the smallest value is 2, or 0 to train on all rows",
        ),
        (
            [7, 7, 7],
            1,
            False,
            " is 1, but there are 3 training rows of one group (the same question, passage or conversation), which "
            "stays together: set data.selection_rows: 0 to train on all rows",
        ),
        (
            [7],
            1,
            True,
            " is 1 by default, but there is only one training row: set data.selection_rows: 0 to train on all rows",
        ),
    ],
)
def test_a_number_of_rows_that_cannot_be_held_out_has_its_own_reason(groups, number, is_default, sentence):
    assert splits.not_held_out(np.array(groups), number, is_default) == f"data.selection_rows{sentence}"
    training, selection = splits.hold_out(np.array(groups), number, 0)
    assert not len(training) or not len(selection)


def test_default():
    assert [default_selection_rows(count) for count in (5, 999, 16113)] == [1, 49, 500]


def test_subset():
    rows = list(range(0, 100, 2))
    small, large = subset(rows, 10, 0), subset(rows, 20, 0)
    assert small == sorted(small)
    assert set(small) < set(large) < set(rows)
    assert subset(rows, None, 0) == subset(rows, 50, 0) == rows
    assert subset(rows, 10, 1) != small
