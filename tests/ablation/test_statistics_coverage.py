"""Intervals and tests in simulations with a known truth: they have their nominal coverage and level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from smoa_lightning.ablation.statistics import (
    crossed_difference,
    holm,
    interquartile_mean,
    standard_error,
)

from .simulation import (
    TRUTHS,
    Truth,
    bootstrap,
    coverage,
    coverage_range,
    crossed,
    crossed_coverage,
    hillis_error,
    over_items,
    over_seeds,
    runs,
)


@pytest.mark.parametrize("n", [3, 4, 5, 10])
def test_crossed_interval_covers_for_all_shares_of_the_variances(n: int) -> None:
    least, most = coverage_range(standard_error, n)
    assert least > 94
    assert most < 96
    assert coverage_range(hillis_error, n)[0] < least


@pytest.mark.parametrize(("seeds", "items"), [(3, 200), (3, 400), (5, 300)])
def test_crossed_interval_covers_binary_answers(seeds: int, items: int) -> None:
    for number, truth in enumerate(TRUTHS.values()):
        answers = runs(np.random.default_rng(number), 1000, seeds, items, truth)
        assert abs(crossed_coverage(answers, truth) - 95) < 1.5 + 1.4, truth  # two standard errors of 1000 repeats
        some = answers[:, :20]
        assert crossed_coverage(some, truth) == coverage(crossed, some, truth)[0]


def test_crossed_interval_covers_within_one_and_a_half_points() -> None:
    truth = TRUTHS["seeds vary"]
    for seeds, items in ((3, 300), (5, 300)):
        assert abs(crossed_coverage(runs(np.random.default_rng(1), 5000, seeds, items, truth), truth) - 95) < 1.5


def test_leaving_out_seeds_or_items_does_not_cover() -> None:
    stable = TRUTHS["items suit cells, stable runs"]
    assert coverage(over_seeds, runs(np.random.default_rng(0), 300, 5, 200, stable), stable)[0] < 85
    moving = TRUTHS["seeds vary much"]
    assert coverage(over_items, runs(np.random.default_rng(0), 300, 5, 200, moving), moving)[0] < 85


def test_bootstrap_interval_covers() -> None:
    truth = TRUTHS["seeds vary a little"]
    covered, _ = coverage(bootstrap, runs(np.random.default_rng(0), 300, 5, 200, truth), truth)
    assert abs(covered - 95) < 1.5 + 2.5  # two standard errors of 300 repeats


def test_holm_keeps_the_family_and_rejects_more_than_bonferroni() -> None:
    """Six cells are compared with one baseline; three truly differ. The shared baseline makes comparisons dependent."""
    rng = np.random.default_rng(2)
    shift, repeats = np.array([0, 0, 0, 2.8, 2.8, 2.8]), 4000
    z = (rng.normal(size=(repeats, 6)) + shift * np.sqrt(2) - rng.normal(size=(repeats, 1))) / np.sqrt(2)
    p = 2 * special.ndtr(-np.abs(z))
    by_holm = np.array([holm(list(row)) for row in p]) < 0.05
    by_bonferroni = 6 * p < 0.05
    nulls = shift == 0
    assert by_holm[:, nulls].any(axis=1).mean() < 0.05 + 0.007
    assert (p[:, nulls] < 0.05).any(axis=1).mean() > 0.08  # without a correction
    assert (by_holm >= by_bonferroni).all()
    assert by_holm[:, ~nulls].mean() > by_bonferroni[:, ~nulls].mean() + 0.02


def test_family_of_cells_against_a_baseline_end_to_end() -> None:
    """Five equal cells, three seeds, 200 items: a difference is rarely established."""
    answers = runs(np.random.default_rng(3), 600, 3, 200, TRUTHS["seeds vary"], cells=5)
    found = [
        holm([crossed_difference(cell[repeat], answers[0, repeat]).p for cell in answers[1:]]) for repeat in range(600)
    ]
    assert np.mean([min(adjusted) < 0.05 for adjusted in found]) < 0.05 + 0.018


def test_interquartile_mean_covers() -> None:
    rng, covered = np.random.default_rng(4), []
    for _ in range(400):
        tasks = np.linspace(0.4, 0.8, 8)[:, None] + rng.normal(0, 0.02, (8, 3))
        found = interquartile_mean(tasks, resamples=400)
        covered.append(found.low <= 0.6 <= found.high)
    assert abs(100 * np.mean(covered) - 95) < 1.5 + 2.2  # two standard errors of 400 repeats


def test_truth_of_the_simulation() -> None:
    truth = Truth(threshold=1.5, shift=0.1)
    first, second = runs(np.random.default_rng(0), 300, 5, 300, truth).mean(axis=(1, 2, 3))
    assert second - first == pytest.approx(truth.difference, abs=0.003)
    assert truth.difference > 0.01
