"""Proportions of a mixture, and which rows make it up."""

from __future__ import annotations

from collections import Counter

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows import mixture
from smoa_lightning.data.rows.mixture import check_weights, counts

SIZES = {"small": 7, "large": 60, "middle": 20}


def mix(*args, **kwargs):
    """Return the rows of a mixture as (task, position)."""
    tasks, positions = mixture.mix(*args, **kwargs)
    return [(list(SIZES)[task], position) for task, position in zip(tasks, positions.tolist(), strict=True)]


@pytest.mark.parametrize("total", [1, 10, 87, 1000])
@pytest.mark.parametrize("weights", [{"small": 1, "large": 1, "middle": 1}, {"small": 0.2, "large": 0.5, "middle": 3}])
def test_shares_follow_the_weights_to_one_row(weights, total):
    found = counts(SIZES, weights, total)
    assert sum(found.values()) == total
    for name, weight in weights.items():
        assert abs(found[name] - total * weight / sum(weights.values())) < 1


def test_without_weights_each_row_is_there_once():
    rows = mix(SIZES, None, None, seed=0)
    assert Counter(name for name, _ in rows) == SIZES
    assert len(set(rows)) == len(rows)


def test_without_weights_a_total_is_a_seeded_choice():
    assert len(set(mix(SIZES, None, 30, seed=1))) == 30
    assert mix(SIZES, None, 30, seed=1) == mix(SIZES, None, 30, seed=1) != mix(SIZES, None, 30, seed=2)


def test_a_small_task_is_repeated_evenly_and_a_large_one_thinned_out():
    rows = mix(SIZES, {"small": 1, "large": 1, "middle": 1}, 90, seed=0)
    each = Counter(rows)
    assert Counter(name for name, _ in rows) == {"small": 30, "large": 30, "middle": 30}
    assert {each["small", row] for row in range(7)} == {4, 5}  # 30 = 4 rounds of 7, and 2 more
    assert {each["large", row] for row in range(60)} == {0, 1}
    assert {each["middle", row] for row in range(20)} == {1, 2}


def test_the_default_total_is_that_of_all_tasks():
    assert len(mix(SIZES, {"small": 1, "large": 5, "middle": 1}, None, seed=0)) == sum(SIZES.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "two tasks"),
        (["piqa"], "two tasks"),
        (["piqa", "piqa"], "piqa is named twice"),
        ({"piqa": 1, "boolq": 0}, "weight of boolq is 0"),
        ({"piqa": 1, "boolq": float("nan")}, "weight of boolq"),
        ({"piqa": 1, "boolq": float("inf")}, "weight of boolq is inf, but must be above 0 and finite"),
    ],
)
def test_wrong_mixtures_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        check_weights(given)
