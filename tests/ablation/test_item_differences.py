"""Differences of two trained models over rows, against scipy and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.ablation.statistics import (
    accuracy_difference,
    item_difference,
    mcnemar,
    mean_of_accuracy_differences,
    mean_of_differences,
    perplexity_scores,
)
from smoa_lightning.common.errors import UserError

RNG = np.random.default_rng(5)


def test_difference_over_rows_is_the_paired_t_test_of_scipy() -> None:
    first, second = RNG.normal(0.3, 1, 200), RNG.normal(0, 1, 200)
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    found = item_difference(first, second)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.standard_error == pytest.approx(stats.sem(first - second), rel=1e-9)
    assert (found.n_items, found.n_seeds, found.method) == (200, 1, "items")


def test_models_that_agree_on_every_row_have_no_interval() -> None:
    found = item_difference([1, 0, 1], [1, 0, 1])
    assert (found.value, found.low, found.p) == (0, None, 1.0)
    assert item_difference([2.0, 3.0], [1.0, 2.0]).p is None  # they differ by a constant
    both = mean_of_differences([found, found])
    assert (both.value, both.p) == (0, 1.0)


@pytest.mark.parametrize("shares", [(0.02, 0.02), (0.05, 0.01), (0.2, 0.1), (0.5, 0.02)])
def test_interval_of_accuracies_covers_the_true_difference(shares: tuple[float, float]) -> None:
    """Simulated pairs of models with known shares of rows that only one of them has right."""
    rows, runs = 100, 1500
    covered = 0
    for b, c, _ in np.random.default_rng(3).multinomial(rows, [*shares, 1 - sum(shares)], size=runs):
        first, second = np.zeros(rows), np.zeros(rows)
        first[:b], second[b : b + c] = 1, 1
        found = accuracy_difference(first, second)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= shares[0] - shares[1] <= found.high
    assert covered / runs >= 0.94  # with two such rows expected it is nearly 1


@pytest.mark.parametrize("only_second", range(4))
def test_interval_of_accuracies_excludes_zero_where_the_exact_test_finds_a_difference(only_second: int) -> None:
    for only_first in range(only_second, 40):
        first = [1] * only_first + [0] * (300 - only_first)
        second = [0] * (300 - only_second) + [1] * only_second
        found = accuracy_difference(first, second)
        p = stats.binomtest(only_first, max(1, only_first + only_second), 0.5).pvalue if only_first else 1.0
        assert found.p == pytest.approx(p)
        assert found.low is not None
        if p < 0.04 or p > 0.07:
            assert (found.low > 0) == (p < 0.05), (only_first, only_second)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (15, 7), (6, 84), (40, 40)])
def test_mcnemar_is_the_exact_binomial_test_of_scipy(only_first: int, only_second: int) -> None:
    first = [1] * only_first + [0] * only_second + [1, 0] * 10
    second = [0] * only_first + [1] * only_second + [1, 0] * 10
    number = only_first + only_second
    expected = stats.binomtest(only_first, number, 0.5).pvalue if number else 1.0
    assert mcnemar(first, second).p == pytest.approx(expected, rel=1e-9)


def test_mean_of_tasks_is_the_test_of_welch_with_two_tasks() -> None:
    """With the difference of a second task negated, the mean is half of the difference of two independent means."""
    first, second = RNG.normal(0.5, 1, 50), RNG.normal(0.1, 3, 80)
    zeros = [np.zeros(50), np.zeros(80)]
    parts = [item_difference(first, zeros[0]), item_difference(-second, zeros[1])]
    expected = stats.ttest_ind(first, second, equal_var=False)
    found = mean_of_differences(parts)
    assert found.value == pytest.approx((first.mean() - second.mean()) / 2)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.df == pytest.approx(expected.df, rel=1e-9)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low / 2, high / 2), rel=1e-9)
    with pytest.raises(UserError, match="at least one task"):
        mean_of_differences([])


def right(only_first: int, only_second: int, rows: int) -> tuple[list[int], list[int]]:
    """Two models' answers with these numbers of rows that only one of them has right."""
    rest = rows - only_first - only_second
    return [1] * only_first + [0] * (rows - only_first), [0] * only_first + [1] * only_second + [0] * rest


@pytest.mark.parametrize(("only_first", "rows"), [(5, 20), (5, 200), (6, 20), (8, 60)])
def test_a_task_without_differences_makes_the_mean_no_surer(only_first: int, rows: int) -> None:
    some, none = right(only_first, 0, rows), right(0, 0, rows)
    found = mean_of_accuracy_differences([some, none])
    assert found.value == only_first / rows / 2
    assert found.p is not None
    assert found.p > stats.binomtest(only_first, only_first, 0.5).pvalue


def test_a_task_that_one_model_has_all_right_counts_in_the_mean() -> None:
    """The other task is equal, so the spread of the first decides."""
    whole, half = right(20, 0, 20), right(10, 10, 20)
    found = mean_of_accuracy_differences([whole, half])
    b, c = 21 / 22, 1 / 22  # Bonett and Price, by hand
    variances = [(b + c - (b - c) ** 2) / 22, 2 * (11 / 22) / 22]
    assert found.value == 0.5
    assert found.standard_error == pytest.approx(np.sqrt(sum(variances)) / 2)
    one = mean_of_accuracy_differences([whole])
    single = accuracy_difference(*whole)
    assert (one.low, one.high) == pytest.approx((single.low, single.high))
    assert mean_of_accuracy_differences([whole, right(1, 0, 1)]).p is None
    with pytest.raises(UserError, match="at least one task"):
        mean_of_accuracy_differences([])


@pytest.mark.parametrize("constant", [([2.0, 3.0], [1.0, 2.0]), ([2.0], [1.0]), ([2.0], [2.0])])
def test_a_task_of_unknown_spread_leaves_no_test_of_the_mean(constant: tuple[list[float], list[float]]) -> None:
    noisy = item_difference(RNG.normal(2, 1, 30), RNG.normal(0, 1, 30))
    found = mean_of_differences([noisy, item_difference(*constant)])
    assert (found.p, found.low, found.standard_error) == (None, None, None)
    assert found.value == pytest.approx((noisy.value + constant[0][0] - constant[1][0]) / 2)


@pytest.mark.parametrize(
    ("rows", "shares"),
    [
        ((50, 50), [(0.04, 0), (0.04, 0)]),
        ((100, 100), [(0.03, 0), (0.02, 0)]),
        ((20, 200), [(0.15, 0.15), (0.02, 0.02)]),
        ((20, 20), [(0.9, 0), (0.05, 0.05)]),
        ((100,) * 5, [(0.02, 0.02)] * 5),
    ],
)
def test_interval_of_the_mean_of_accuracies_covers_with_few_different_rows(
    rows: tuple[int, ...], shares: list[tuple[float, float]]
) -> None:
    """With the sample variances of the tasks the first two and the fourth cover 91, 87 and 86 %."""
    rng, runs, covered = np.random.default_rng(3), 500, 0
    drawn = [rng.multinomial(m, [*each, 1 - sum(each)], size=runs) for m, each in zip(rows, shares, strict=True)]
    truth = np.mean([b - c for b, c in shares])
    for tasks in zip(*drawn, strict=True):
        answers = [right(int(b), int(c), m) for (b, c, _), m in zip(tasks, rows, strict=True)]
        found = mean_of_accuracy_differences(answers)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / runs >= 0.95 - 0.01


def test_perplexity_scores_have_the_perplexity_as_mean_and_the_spread_of_the_bootstrap() -> None:
    tokens = RNG.integers(5, 60, 400)
    nll = tokens * RNG.gamma(4, 0.25, 400)
    scores = perplexity_scores(nll, tokens)
    assert scores.mean() == pytest.approx(np.exp(nll.sum() / tokens.sum()), rel=1e-12)

    def perplexity(n: np.ndarray, t: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(np.exp(n.sum(axis=axis) / t.sum(axis=axis)))

    drawn = stats.bootstrap(
        (nll, tokens), perplexity, paired=True, vectorized=True, n_resamples=4000, method="basic", rng=7
    )
    assert stats.sem(scores) == pytest.approx(drawn.standard_error, rel=0.05)


# -------------------------------------------------------------------------------------------------------------- groups


def test_groups_give_the_cluster_robust_error_of_the_difference() -> None:
    """Against the sandwich estimator of a mean by its definition, in float64."""
    groups = RNG.integers(0, 25, 150)
    first, second = (RNG.normal(size=25)[groups] + RNG.normal(size=150) for _ in range(2))
    d = first - second
    sums = np.bincount(groups, weights=d - d.mean(), minlength=25)
    found = item_difference(first, second, groups=groups.tolist())
    assert found.value == pytest.approx(d.mean())
    assert found.standard_error == pytest.approx(np.sqrt(25 / 24 * (sums**2).sum()) / 150)
    assert (found.n_items, found.n_groups, found.df) == (150, 25, 24)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value) / found.standard_error, 24))
    assert item_difference(first, second, groups=range(150)) == item_difference(first, second)
    swapped = [*range(1, 9), 0], range(9)
    assert item_difference(*swapped, groups=[0, 1, 2] * 3).value == 0  # not 1e-17, which would be better or worse
    alone = item_difference(first, second, groups=["one"] * 150)
    assert (alone.value, alone.p, alone.low, alone.n_groups) == (pytest.approx(d.mean()), None, None, 1)


def test_accuracies_of_copied_rows_keep_the_interval_of_the_rows() -> None:
    """Each row four times in one group: the error is that of the rows, where McNemar's test would halve it."""
    first, second = RNG.random(120) < 0.6, RNG.random(120) < 0.5
    groups = np.tile(np.arange(120), 4).tolist()
    rows, copies = accuracy_difference(first, second), [np.tile(side, 4) for side in (first, second)]
    found = accuracy_difference(*copies, groups=groups)
    assert found.low is not None
    assert rows.low is not None
    assert (found.low, found.high) == pytest.approx((rows.low, rows.high), abs=0.006)
    assert accuracy_difference(*copies).high < found.high - 0.03
    assert (found.n_items, found.n_groups, found.df) == (480, 120, 119)
    mean = mean_of_accuracy_differences([copies, copies], groups=[groups, groups])  # type: ignore[list-item]
    assert mean.standard_error == pytest.approx((found.high - found.low) / 2 / stats.t.ppf(0.975, 119) / np.sqrt(2))
    assert mean_of_accuracy_differences([copies], groups=[[0] * 480]).p is None  # type: ignore[list-item]


def test_the_interval_of_accuracies_over_groups_covers() -> None:
    """Rows of a group are answered alike: 300 rows in 60 groups, no true difference."""
    source, covered, of_rows = np.random.default_rng(8), 0, 0
    for _ in range(400):
        first, second = (np.repeat(source.random(60) < 0.6, 5) ^ (source.random(300) < 0.1) for _ in range(2))
        found = accuracy_difference(first, second, groups=np.repeat(np.arange(60), 5).tolist())
        covered += found.low <= 0 <= found.high  # type: ignore[operator]
        of_rows += accuracy_difference(first, second).p >= 0.05  # type: ignore[operator]
    assert 0.92 <= covered / 400 <= 0.98  # standard error 1.1 %
    assert of_rows / 400 < 0.75  # McNemar's test takes the rows as independent
