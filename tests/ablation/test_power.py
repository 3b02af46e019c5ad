"""The power of planned studies, compared with the noncentral t-test, the normal test, and simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.ablation.statistics import (
    MeanSquares,
    PlannedTest,
    Variances,
    assumed_variances,
    detectable_difference,
    items_to_detect,
    mean_squares,
    power_of,
    seeds_to_detect,
    variances_of,
)
from smoa_lightning.common.errors import UserError

from .family import Family
from .simulation import MEASURED, TRUTHS, runs

PLAIN = Variances(seeds=2e-4, items=0.02, residual=0.1)


@pytest.mark.parametrize(("n", "comparisons"), [(2, 1), (3, 4), (10, 1)])
def test_without_item_variance_it_is_the_noncentral_t_test(n: int, comparisons: int) -> None:
    test, variances = PlannedTest(comparisons), Variances(2e-4, 0.0, 0.0)
    found = detectable_difference(n, 400, variances, test)
    critical, error = stats.t.ppf(1 - 0.025 / comparisons, n - 1), np.sqrt(2e-4 / n)
    assert stats.nct.sf(critical, n - 1, found / error) == pytest.approx(0.8, abs=0.004)


def test_without_seed_variance_it_is_the_normal_test() -> None:
    found = detectable_difference(3, 20_000, Variances(0.0, 0.24, 0.0), PlannedTest())
    assert found == pytest.approx((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * np.sqrt(0.24 / 20_000), rel=3e-3)


def test_variances_are_those_of_the_effects() -> None:
    rng = np.random.default_rng(0)
    found = []
    for n, m in ((4, 50), (3, 80)) * 200:
        d = rng.normal(0, 0.1, (n, 1)) + rng.normal(0, 0.3, m) + rng.normal(0, 0.5, (n, m))
        found.append((mean_squares(d), n, m))
    variances = variances_of(found)
    assert (variances.seeds, variances.items, variances.residual) == pytest.approx((0.01, 0.09, 0.25), rel=0.12)
    assert variances_of([(MeanSquares(0.1, 0.1, 0.2), 3, 10)]) == Variances(0.0, 0.0, 0.2)
    with pytest.raises(UserError, match="at least one pair"):
        variances_of([])


def test_assumed_variances_give_back_what_is_assumed() -> None:
    found = assumed_variances(300, 0.6, 0.03, 0.5, seed_correlation=0.2)
    assert found.items + found.residual == pytest.approx(2 * 0.24 * 0.5)
    assert found.seeds + found.residual / 300 == pytest.approx(2 * 0.03**2 * 0.8)
    assert assumed_variances(300, 0.6, 0.0, 0.5).seeds == 0


@pytest.mark.parametrize("name", ["seeds vary", "no item suits a cell", "measured, methods differ"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_planned_difference_is_detected_four_times_in_five(name: str, seeds: int) -> None:
    """Five cells, Holm's level for the smallest of four p, binary answers, pooled seed variances."""
    answers = runs(np.random.default_rng(11), 600, seeds, 200, (TRUTHS | MEASURED)[name], cells=5)
    differences = answers[1:] - answers[0]
    flat = mean_squares(differences.reshape(-1, seeds, 200))
    variances = variances_of([(MeanSquares(*(part.mean() for part in flat)), seeds, 200)])
    planned = detectable_difference(seeds, 200, variances, PlannedTest(comparisons=4, cells=5))
    family = Family(answers, 2)
    detected = np.abs(family.values + planned) > family.half(0.05 / 4)
    assert detected.mean() == pytest.approx(0.8, abs=0.05)


def test_more_seeds_items_cells_and_fewer_comparisons_detect_less() -> None:
    def detects(seeds: int = 3, items: int = 300, **test: int) -> float:
        return detectable_difference(seeds, items, PLAIN, PlannedTest(**test))

    assert detects(seeds=5) < detects() > detects(items=1000)
    assert detects(comparisons=5) > detects() > detects(cells=5)
    assert detectable_difference(1, 300, PLAIN, PlannedTest()) is None
    assert PlannedTest(5).level == pytest.approx(0.01)
    found = detects()
    assert power_of(found, 3, 300, PLAIN, PlannedTest()) == pytest.approx(0.8, abs=1e-3)
    assert power_of(found, 1, 300, PLAIN, PlannedTest()) == 0
    assert power_of(0.0, 3, 300, PLAIN, PlannedTest()) == pytest.approx(0.05, abs=0.01)


def test_seeds_and_items_that_a_margin_needs() -> None:
    test = PlannedTest(4, 5)
    n = seeds_to_detect(0.04, 300, PLAIN, test, least=3)
    assert detectable_difference(n, 300, PLAIN, test) <= 0.04 < detectable_difference(n - 1, 300, PLAIN, test)
    m = items_to_detect(0.08, 3, PLAIN, test)
    assert detectable_difference(3, m, PLAIN, test) <= 0.08 < detectable_difference(3, int(0.97 * m), PLAIN, test)
    assert seeds_to_detect(0.001, 300, PLAIN, test, least=3) is None
    assert items_to_detect(0.001, 3, PLAIN, test) is None


def test_every_small_number_of_items_is_found() -> None:
    """Between 44 and 46 the middle was 44 for ever."""
    variances = Variances(0.0, 0.2, 0.25)
    for margin in np.linspace(0.4, 1.5, 40):
        m = items_to_detect(float(margin), 3, variances, PlannedTest(1, 2))
        assert detectable_difference(3, m, variances, PlannedTest(1, 2)) <= margin + 1e-9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accuracy": 60.0}, "accuracy is 60"),
        ({"seed_sd": 1.0}, "over seeds is 1"),
        ({"item_correlation": 1.5}, "over items is 1.5"),
        ({"seed_correlation": -2}, "over seeds is -2"),
        ({"n_items": 1}, "1 items"),
    ],
)
def test_impossible_assumptions_are_refused(change: dict[str, float], words: str) -> None:
    plan = {"n_items": 300, "accuracy": 0.6, "seed_sd": 0.01, "item_correlation": 0.5}
    with pytest.raises(UserError, match=words):
        assumed_variances(**(plan | change))


def test_impossible_plans_are_refused() -> None:
    for arguments, words in (
        ((0, 300, PLAIN), "0 seeds"),
        ((3, 1, PLAIN), "1 items"),
        ((3, 300, Variances(0.0, 0.0, 0.0)), "seeds and items do not vary"),
    ):
        with pytest.raises(UserError, match=words):
            detectable_difference(*arguments, PlannedTest())
    for keys, words in (({"comparisons": 0}, "0 comparisons"), ({"power": 0.01}, "must be above the level"),
                        ({"cells": 1}, "1 cells")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            PlannedTest(**keys)
