"""Intervals, tests and effects compared with scipy, with definitions, and with computations by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.ablation.statistics import (
    Difference,
    Scores,
    crossed_difference,
    holm,
    interquartile_mean,
    mcnemar,
    mean_interval,
    mean_squares,
    pair,
    paired_difference,
    seed_effect,
    standard_error,
    verdict,
)
from smoa_lightning.common.errors import UserError

from .bootstrap import counts, paired_bootstrap, studentised


def test_nothing_slow_is_imported() -> None:
    heavy = "('scipy.stats', 'scipy.optimize', 'torch', 'pandas')"
    code = f"import sys, smoa_lightning.ablation.statistics; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(6)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_mean_interval_is_scipys(n: int, rng: np.random.Generator) -> None:
    x = rng.normal(0.6, 0.02, n)
    found = mean_interval(x, 0.9)
    expected = stats.t.interval(0.9, n - 1, loc=x.mean(), scale=stats.sem(x))
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)
    assert found.value == pytest.approx(x.mean())
    assert found.sd == pytest.approx(x.std(ddof=1))


def test_no_interval_without_a_spread() -> None:
    assert mean_interval([0.6]).low is None
    assert mean_interval([0.1 + 0.2, 0.3, 0.3]).high is None  # the scores differ only by rounding
    assert paired_difference([0.6], [0.5]).p is None
    constant = paired_difference([0.7, 0.8, 0.9], [0.6, 0.7, 0.8])
    assert constant.value == pytest.approx(0.1)
    assert (constant.low, constant.p) == (None, None)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_paired_difference_is_scipys(n: int, rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, n))
    found, expected = paired_difference(a, b), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose([found.p, found.low, found.high], [expected.pvalue, interval.low, interval.high])


def test_mean_squares_are_those_of_least_squares(rng: np.random.Generator) -> None:
    n, m = 4, 7
    d = rng.normal(size=(n, m)) + rng.normal(size=(n, 1)) + rng.normal(size=m)
    seeds, items = np.repeat(np.eye(n), m, axis=0), np.tile(np.eye(m), (n, 1))

    def residual(*blocks: np.ndarray) -> float:
        design = np.hstack([np.ones((n * m, 1)), *blocks])
        return float(((d.ravel() - design @ np.linalg.lstsq(design, d.ravel(), rcond=None)[0]) ** 2).sum())

    both = residual(seeds, items)
    expected = [
        (residual(items) - both) / (n - 1),
        (residual(seeds) - both) / (m - 1),
        both / ((n - 1) * (m - 1)),
    ]
    np.testing.assert_allclose(mean_squares(d), expected)
    np.testing.assert_allclose(mean_squares(np.stack([d, 2 * d])), np.outer(expected, [1, 4]))


def test_crossed_difference_by_hand() -> None:
    # d = cell - baseline; means of the seeds .5, 1, 0; of the items 1, 0, 1, 0; overall .5
    cell = np.array([[1, 0, 1, 0], [2, 1, 1, 0], [0, -1, 1, 0]], dtype=float)
    found = crossed_difference(cell, np.zeros((3, 4)))
    s, i, e = 4 * (0 + 0.25 + 0.25) / 2, 3 * 4 * 0.25 / 3, 2 / 6  # the residual is +-.5 in eight of twelve places
    assert mean_squares(cell) == pytest.approx((s, i, e))
    total = s + (i - e)
    shrunk = s * (1 + 1.5 * (i - e) / (s + i - e) / 2)
    df = total**2 / (shrunk**2 / 2 + i**2 / 3)
    assert found.df == pytest.approx(df)
    assert found.standard_error == pytest.approx(math.sqrt(total / 12))
    assert found.p == pytest.approx(2 * stats.t.sf(0.5 / math.sqrt(total / 12), df))
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, df, 0.5, math.sqrt(total / 12)))
    assert (found.n_seeds, found.n_items, found.method) == (3, 4, "seeds and items")


def test_crossed_difference_without_item_effects_is_the_t_test_over_seeds(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(5, 30))
    d = noise - noise.mean(axis=0) + rng.normal(0, 3, (5, 1))  # every item has the same mean over the seeds
    found, expected = crossed_difference(d, np.zeros_like(d)), stats.ttest_1samp(d.mean(axis=1), 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(4)


def test_crossed_difference_without_seed_effects_is_the_t_test_over_items(rng: np.random.Generator) -> None:
    d = np.tile(rng.normal(size=50), (4, 1))  # the same run four times
    found, expected = crossed_difference(d, np.zeros_like(d)), stats.ttest_1samp(d[0], 0)
    assert found.p == pytest.approx(expected.pvalue)


def test_crossed_difference_of_one_seed_and_of_equal_runs() -> None:
    one = crossed_difference([[1, 0, 1]], [[0, 0, 1]])
    assert one.value == pytest.approx(1 / 3)
    assert (one.low, one.p, one.standard_error) == (None, None, None)
    same = crossed_difference(np.eye(3), np.eye(3))
    assert (same.value, same.low, same.p) == (0, None, 1)
    shifted = crossed_difference(np.eye(3) + 1, np.eye(3))
    assert (shifted.value, shifted.low, shifted.p) == (1, None, None)


def test_bootstrap_sums_are_those_of_resampled_tables(rng: np.random.Generator) -> None:
    n, m = 3, 8
    d = rng.integers(-1, 2, (n, m)).astype(float)
    drawn = np.random.default_rng(5)
    by_seed, by_item = counts(drawn, 50, n), counts(drawn, 50, m)
    assert (by_seed.sum(axis=1) == n).all()
    assert (by_item.sum(axis=1) == m).all()
    pivots = studentised(d, np.random.default_rng(5), 50)
    for seeds, items, pivot in zip(by_seed.astype(int), by_item.astype(int), pivots, strict=True):
        table = np.repeat(np.repeat(d, seeds, axis=0), items, axis=1)
        error = float(standard_error(mean_squares(table), n, m)[0])
        if error > 1e-9:
            assert pivot == pytest.approx(abs(table.mean() - d.mean()) / error)
        else:
            assert pivot == (math.inf if abs(table.mean() - d.mean()) > 1e-9 else 0)


def test_bootstrap_agrees_with_the_t_interval_where_there_are_many_seeds(rng: np.random.Generator) -> None:
    d = rng.normal(0.1, 1, (40, 60)) + rng.normal(0, 0.3, (40, 1)) + rng.normal(0, 0.3, 60)
    found, expected = paired_bootstrap(d, np.zeros_like(d), resamples=3000), crossed_difference(d, np.zeros_like(d))
    assert found.low == pytest.approx(expected.low, abs=0.15 * expected.standard_error)
    assert found.p == pytest.approx(expected.p, abs=0.03)
    assert found == paired_bootstrap(d, np.zeros_like(d), resamples=3000)
    assert found != paired_bootstrap(d, np.zeros_like(d), resamples=3000, seed=1)
    assert paired_bootstrap(d[:1], d[1:2]).low is None


@pytest.mark.parametrize("only_first", range(7))
@pytest.mark.parametrize("only_second", [0, 1, 4, 9])
def test_mcnemar_is_scipys(only_first: int, only_second: int) -> None:
    a = np.array([1] * only_first + [0] * only_second + [1, 1, 0])
    b = np.array([0] * only_first + [1] * only_second + [1, 1, 0])
    test = mcnemar(a, b)
    assert (test.only_first, test.only_second, test.n_items) == (only_first, only_second, len(a))
    if not only_first + only_second:
        assert test.p == 1
        return
    assert test.p == pytest.approx(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def test_holm_rejects_what_the_step_down_procedure_rejects(rng: np.random.Generator) -> None:
    for _ in range(50):
        p = list(np.round(rng.uniform(0, 0.2, rng.integers(1, 8)), 2))  # rounded: with ties
        adjusted = holm(p)
        for alpha in (0.011, 0.051, 0.101, 0.301):
            rejected = set()
            for step, number in enumerate(sorted(range(len(p)), key=p.__getitem__)):
                if p[number] > alpha / (len(p) - step):
                    break
                rejected.add(number)
            assert {number for number, value in enumerate(adjusted) if value <= alpha} == rejected
        assert [adjusted[a] <= adjusted[b] for a in range(len(p)) for b in range(len(p)) if p[a] <= p[b]].count(
            False
        ) == 0


def test_holm_ignores_comparisons_without_a_test() -> None:
    assert holm([0.01, None, 0.02]) == pytest.approx([0.02, None, 0.02])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([None]) == [None]
    assert holm([]) == []
    with pytest.raises(UserError, match=r"1\.2"):
        holm([0.1, 1.2])


def test_hedges_correction_is_unbiased(rng: np.random.Generator) -> None:
    differences = rng.normal(1.0, 1.0, (20_000, 5))
    found = [seed_effect(row, np.zeros(5)) for row in differences[:300]]
    d_z = differences.mean(axis=1) / differences.std(axis=1, ddof=1)
    assert [effect.d_z for effect in found] == pytest.approx(list(d_z[:300]))
    factor = found[0].g_z / found[0].d_z
    assert d_z.mean() * factor == pytest.approx(1.0, abs=0.02)
    assert d_z.mean() > 1.2  # the bias that the correction removes
    assert seed_effect([1, 2], [0, 0]).g_z is None
    assert seed_effect([1, 1, 1], [0, 0, 0]).d_z is None


def test_interquartile_mean_is_scipys(rng: np.random.Generator) -> None:
    tasks = rng.normal(0.6, 0.02, (6, 5)) + np.linspace(-0.2, 0.2, 6)[:, None]
    found = interquartile_mean(tasks, resamples=20_000)
    assert found.value == pytest.approx(stats.trim_mean(tasks, 0.25, axis=None))
    reference = stats.bootstrap(
        list(tasks),
        lambda *drawn, axis=-1: stats.trim_mean(np.concatenate(drawn, axis=axis), 0.25, axis=axis),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    factor = math.sqrt(5 / 4) * stats.t.ppf(0.975, 24) / stats.norm.ppf(0.975)
    expected = [found.value + factor * (end - found.value) for end in reference]
    assert [found.low, found.high] == pytest.approx(expected, abs=0.03 * (found.high - found.low))
    assert found.sd == pytest.approx(np.sqrt(tasks.var(axis=1, ddof=1).mean()))
    assert interquartile_mean([[0.5], [0.6]]).low is None
    assert interquartile_mean([[0.5, 0.7, 0.6], [0.6, 0.4]]).n == 5


def test_pairing_keeps_shared_seeds_and_items() -> None:
    cell = Scores(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9.0]]), (0, 1, 2), ("a", "b", "c"))
    nan = np.nan
    baseline = Scores(np.array([[30, nan, 10, 0], [nan, nan, nan, nan], [90, 80, 70, 0.0]]), (2, 1, 0), tuple("cbad"))
    found = pair(cell, baseline)
    assert (found.seeds, found.items) == ((0, 2), ("a", "c"))
    assert found.dropped_seeds == (1,)
    assert found.dropped_items == 2  # b has no score with seed 2, and only the baseline has d
    np.testing.assert_array_equal(found.cell, [[1, 3], [7, 9]])
    np.testing.assert_array_equal(found.baseline, [[70, 90], [10, 30]])
    np.testing.assert_array_equal(found.differences, [[-69, -87], [-3, -21]])


def difference(value: float, n_seeds: int, low: float | None = 0.01, n_items: int | None = 400) -> Difference:
    high = None if low is None else 2 * value - low
    return Difference(value, low, high, 0.01, 0.005, 3.0, n_seeds, n_items, "seeds and items")


def test_verdicts() -> None:
    found = verdict("smoa", "lora", difference(0.02, 3), 0.03)
    assert found.sentence == (
        "smoa is better than lora by 2.00 points, 95 % interval [1.00, 3.00], adjusted p = 0.030, 3 seeds, 400 items: "
        "established."
    )
    assert (found.established, found.better, found.outcome) == (True, True, "better")
    worse = verdict("smoa", "lora", difference(0.5, 3), 0.0001, higher_is_better=False, scale=1, unit="")
    assert worse.better is False
    assert worse.sentence.startswith("smoa is worse than lora by 0.50, 95 % interval [0.01, 0.99], adjusted p < 0.001,")
    fine = verdict("smoa", "lora", difference(0.0071, 3, low=0.0038), 0.002, scale=1, unit="", digits=4, margin=0.02)
    assert fine.sentence.startswith(
        "smoa is better than lora by 0.0071, by less than the margin of 0.0200, 95 % interval [0.0038, 0.0104], "
    )
    weak = verdict("smoa", "lora", difference(0.02, 3), 0.05)
    assert weak.outcome == "not established"
    assert weak.sentence.startswith("smoa is not shown to differ from lora: its mean is 2.00 points better, ")
    assert weak.sentence.endswith("400 items: not established.")
    two = verdict("smoa", "lora", difference(0.02, 2), 0.001)
    assert not two.established
    assert two.sentence.endswith("not established, since at least 3 seeds are needed.")
    one = verdict("smoa", "lora", difference(0.02, 1, low=None, n_items=None), None)
    assert ", no interval, not tested, 1 seed: not established, since at least 3 seeds are needed." in one.sentence
    assert verdict("smoa", "lora", difference(0.0, 3), 1.0).sentence.startswith("smoa scores the same as lora, 95 %")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_interval([]), "one entry"),
        (lambda: mean_interval([0.5, np.nan]), r"1 value\(s\) that are not finite numbers"),
        (lambda: mean_interval([0.5, 0.6], confidence=95), "between 0 and 1"),
        (lambda: paired_difference([1, 2], [1]), "cannot pair 2 scores with 1 scores"),
        (lambda: seed_effect([1, 2], [1]), "cannot pair 2 scores with 1 scores"),
        (lambda: crossed_difference(np.ones((2, 3)), np.ones((3, 3))), "the same seeds and items"),
        (lambda: crossed_difference(np.ones((2, 1)), np.ones((2, 1))), "at least two items"),
        (lambda: interquartile_mean([[0.1, 0.2]], resamples=10), "at least 100"),
        (lambda: interquartile_mean([]), "no task"),
        (lambda: mcnemar([0.5], [1]), r"needs 1 \(right\) or 0 \(wrong\) for each item"),
        (lambda: mcnemar([1, 0], [1]), "the same items"),
        (lambda: mcnemar([[1, 0]], [[1, 1]]), "choose one seed"),
        (lambda: Scores(np.ones((1, 2)), (0,), ("a",)), "1 seeds and 1 items"),
        (lambda: Scores(np.ones((2, 1)), (0, 0), ("a",)), "have the seed 0 twice"),
        (lambda: Scores(np.full((1, 1), np.inf), (0,), ("a",)), "infinite"),
        (
            lambda: pair(Scores(np.ones((1, 1)), (0,), ("a",)), Scores(np.ones((1, 1)), (1,), ("a",))),
            "share no seed: one has 0, the other 1",
        ),
        (
            lambda: pair(Scores(np.ones((1, 1)), (0,), ("a",)), Scores(np.ones((1, 1)), (0,), ("b",))),
            "share no item",
        ),
    ],
)
def test_bad_input_is_one_sentence(call: object, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
