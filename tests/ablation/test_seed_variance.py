"""Pooled seed variances, corrected intervals and equivalence, compared with scipy, least squares and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.ablation.statistics import (
    Difference,
    Pooled,
    corrected,
    crossed_difference,
    grid_effects,
    holm,
    holm_levels,
    mean_squares,
    paired_difference,
    pooled_for_differences,
    pooled_for_gains,
    verdict,
)
from smoa_lightning.ablation.statistics.seed_variance import PRIOR_DF, bartlett, shrunken
from smoa_lightning.common.errors import UserError

from .family import Family, gain_errors
from .simulation import MEASURED, TRUTHS, runs


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


@pytest.mark.parametrize(("cells", "n"), [(2, 3), (3, 3), (5, 4), (12, 2)])
def test_bartlett_is_scipys(cells: int, n: int, rng: np.random.Generator) -> None:
    values = rng.normal(size=(6, cells, n)) * np.linspace(1, 3, cells)[:, None]
    expected = [stats.bartlett(*groups).pvalue for groups in values]
    assert bartlett(values.var(axis=-1, ddof=1), n - 1) == pytest.approx(expected)


def test_bartlett_without_variances() -> None:
    assert np.isnan(bartlett([0.0, 0.0, 0.0], 2))
    assert bartlett([0.0, 1.0, 1.0], 2) == 0
    assert np.isnan(bartlett([1.0], 2))


def test_pooled_variance_is_the_residual_of_least_squares(rng: np.random.Generator) -> None:
    y = rng.normal(size=(5, 4)) + rng.normal(size=(5, 1)) + rng.normal(size=4)
    found = pooled_for_differences(y)
    places = [(cell, seed) for cell in range(5) for seed in range(4)]
    expected = grid_effects(y.ravel(), {"cell": [c for c, _ in places]}, [s for _, s in places])
    assert (found.variance, found.df) == (pytest.approx(expected.residual_variance), expected.residual_df)
    rest = y - y.mean(axis=0) - (y - y.mean(axis=0)).mean(axis=1, keepdims=True)
    assert found.bartlett == pytest.approx(stats.bartlett(*rest).pvalue)
    assert pooled_for_differences(np.stack([y, 2 * y])).variance == pytest.approx(found.variance * np.array([1, 4]))


def test_two_cells_keep_the_variance_of_their_pair(rng: np.random.Generator) -> None:
    cell, baseline = (rng.uniform(size=(2, 3, 40)) < 0.5).astype(float)
    pooled = pooled_for_differences([cell.mean(axis=1), baseline.mean(axis=1)]).times(2)
    alone, found = crossed_difference(cell, baseline), crossed_difference(cell, baseline, pooled=pooled)
    assert (found.p, found.df, found.low) == pytest.approx((alone.p, alone.df, alone.low))


def test_shrunken_variance_by_hand() -> None:
    pooled = Pooled(variance=2.0, df=8, bartlett=np.array(0.5), cells=5)
    assert shrunken(6.0, 2, pooled) == (pytest.approx((PRIOR_DF * 2 + 2 * 6) / (PRIOR_DF + 2)), PRIOR_DF + 2)
    assert shrunken(6.0, 2, None) == (6.0, 2)
    few = Pooled(2.0, 3, np.array(np.nan), 2)
    assert shrunken(6.0, 2, few)[1] == 3
    unequal = Pooled(2.0, 8, np.array(0.01), 5)
    assert shrunken(6.0, 2, unequal) == (6.0, 2)


def test_differences_use_the_shrunken_variance(rng: np.random.Generator) -> None:
    pooled = Pooled(variance=0.5, df=8, bartlett=np.array(0.5), cells=5)
    a, b = rng.normal(size=(2, 3))
    found = paired_difference(a, b, pooled=pooled)
    variance = (2 * 0.5 + 2 * (a - b).var(ddof=1)) / 4
    low, high = stats.t.interval(0.95, 4, (a - b).mean(), np.sqrt(variance / 3))
    assert (found.low, found.high, found.df) == (pytest.approx(low), pytest.approx(high), 4)
    noise = rng.normal(size=(3, 20))
    d = noise - noise.mean(axis=0) + rng.normal(0, 3, (3, 1))  # no item effects: the t-test over seeds
    found = crossed_difference(d, np.zeros_like(d), pooled=pooled)
    variance = (2 * 20 * 0.5 + 2 * float(mean_squares(d).seeds)) / 4
    assert (found.df, found.standard_error) == (pytest.approx(4), pytest.approx(np.sqrt(variance / 60)))


def test_gains_pool_the_variances_of_the_cells(rng: np.random.Generator) -> None:
    y = rng.normal(size=(4, 6))
    found = pooled_for_gains(y)
    assert found.variance == pytest.approx(y.var(axis=1, ddof=1).mean())
    assert 5 < found.df <= 20
    assert found.bartlett == pytest.approx(stats.bartlett(*y).pvalue)
    same = pooled_for_gains(np.tile(y[:1], (4, 1)) + np.arange(4)[:, None])  # cells that always vary together
    assert (same.variance, same.df) == pytest.approx((y[0].var(ddof=1), 5))
    one = pooled_for_gains(y[:1])
    assert (one.variance, one.df) == pytest.approx((y[0].var(ddof=1), 5))


def test_levels_and_intervals_agree_with_holm_s_p(rng: np.random.Generator) -> None:
    for _ in range(100):
        values, df = rng.normal(0, 2.5, 6), rng.uniform(2, 30, 6)
        differences = [
            Difference(v, None, None, float(2 * stats.t.sf(abs(v), f)), 1.0, f, 3, None, "seeds")
            for v, f in zip(values, df, strict=True)
        ]
        p_values = [each.p for each in differences]
        for level, raw, p in zip(holm_levels(p_values), p_values, holm(p_values), strict=True):
            assert (raw < level) == (p < 0.05)
            assert 0.05 / 6 - 1e-12 < level < 0.05 + 1e-12
        for p, each, joint in corrected(differences):
            assert (each.low > 0 or each.high < 0) == (p < 0.05)
            expected = stats.t.interval(1 - 0.05 / 6, each.df, each.value, each.standard_error)
            assert (joint.low, joint.high) == pytest.approx(expected)
    one = Difference(0.1, None, None, None, None, None, 1, None, "seeds")
    assert corrected([one, differences[0]])[0] == (None, one, one)


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 0.1), (0.5, 0.1), (0.0, 2.0), (0.9, 0.3), (-0.95, 0.02)])
def test_equivalence_is_two_one_sided_tests(shift: float, spread: float, rng: np.random.Generator) -> None:
    a = rng.normal(shift, spread, 8)
    found = verdict("a", "b", paired_difference(a, np.zeros(8)), 1.0, scale=1.0, unit="", margin=1.0)
    above = stats.ttest_1samp(a, -1.0, alternative="greater").pvalue
    below = stats.ttest_1samp(a, 1.0, alternative="less").pvalue
    assert found.within == (max(above, below) < 0.025)
    assert found.outcome == ("equivalent within the margin" if found.within else "not established")


def test_verdicts_with_a_margin() -> None:
    def judged(low: float, high: float, p: float | None, seeds: int = 3) -> tuple[str, str]:
        difference = Difference((low + high) / 2, low, high, p, 0.003, 5.0, seeds, 400, "seeds and items", 0.9875)
        found = verdict("a", "b", difference, p, margin=0.01)
        return found.outcome, found.sentence

    outcome, sentence = judged(-0.004, 0.006, 0.5)
    assert outcome == "equivalent within the margin"
    assert sentence == (
        "a is equivalent to b (its mean is 0.10 points better) within the margin of 1.00 points, corrected 95 % "
        "interval [-0.40, 0.60], adjusted p = 0.500, 3 seeds, 400 items: equivalent within the margin."
    )
    assert judged(-0.004, 0.012, 0.3)[0] == "not established"
    assert judged(0.004, 0.012, 0.01)[0] == "better"
    assert judged(-0.012, -0.004, 0.01)[0] == "worse"
    outcome, sentence = judged(0.001, 0.009, 0.01)
    assert outcome == "better"
    assert "a is better than b by 0.50 points, by less than the margin of 1.00 points," in sentence
    assert judged(-0.004, 0.006, 0.5, seeds=2)[0] == "not established"


def test_less_than_the_margin_is_read_from_the_joint_interval() -> None:
    """Four differences are established. That of 4 points has an interval of its own level within 10 points."""
    found = [Difference(value, None, None, p, 0.025, 1e6, 3, None, "seeds")
             for value, p in ((0.3, 1e-9), (0.2, 1e-8), (0.2, 1e-7), (0.05, 0.0455))]  # fmt: skip
    *_, last = corrected(found)
    assert last.p < 0.05
    assert -0.1 < last.interval.low < last.interval.high < 0.1
    assert last.joint.high > 0.1
    judged = verdict("a", "b", last.interval, last.p, margin=0.1, joint=last.joint)
    assert (judged.outcome, judged.within) == ("better", False)
    assert "less than the margin" not in judged.sentence
    assert "95 % interval [0.10, 9.90]" in judged.sentence


@pytest.mark.parametrize(
    ("truth", "margin"),
    [((0, 0, 0, 0), 3.6), ((0, 0, 3.6, 3.6), 3.6), ((3.6, 3.6, 3.6, 3.6), 3.6), ((0, 3.6, 9, 9), 3.6),
     ((9, 9, 9, 9), 9), ((9, -9) * 5, 9)],
)  # fmt: skip
def test_false_verdicts_of_all_kinds_stay_below_the_level(truth: tuple[float, ...], margin: float) -> None:
    """The margin is in standard errors: equal cells are not better, and cells at the margin are not within it."""
    rng, signs, equal, within = np.random.default_rng(13), [], [], []
    for values in rng.normal(truth, 1, (1500, len(truth))):
        p_values = 2 * stats.norm.sf(np.abs(values))
        family = corrected([Difference(v, None, None, p, 1.0, 1e6, 3, None, "seeds")
                            for v, p in zip(values, p_values, strict=True)])  # fmt: skip
        verdicts = [verdict("a", "b", each, p, margin=margin, joint=joint) for p, each, joint in family]
        outcomes = [each.outcome for each in verdicts]
        signs.append(any(o in ("better", "worse") and true == 0 for o, true in zip(outcomes, truth, strict=True)))
        equal.append(any("equivalent" in o and true != 0 for o, true in zip(outcomes, truth, strict=True)))
        within.append(any(each.within and abs(true) >= margin for each, true in zip(verdicts, truth, strict=True)))
    assert np.mean(signs) < 0.05 + 0.011
    assert np.mean(equal) < 0.025 + 0.008
    assert np.mean(within) < 0.025 + 0.012  # three standard errors


@pytest.mark.parametrize("name", ["seeds vary", "seeds vary much", "measured, between"])
def test_a_family_keeps_its_level_and_detects_more(name: str) -> None:
    """Five equal cells with three seeds: fewer errors, and half of the detectable difference."""
    answers = runs(np.random.default_rng(9), 500, 3, 200, (TRUTHS | MEASURED)[name], cells=5)
    own, pooled = Family(answers, 0).numbers(), Family(answers, PRIOR_DF).numbers()
    assert pooled[0] > 94
    assert pooled[1] < 5 + 2
    assert pooled[2] < 0.88 * own[2]
    assert pooled[3] < 0.7 * own[3]


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_gains_keep_their_level_better_than_with_their_own_variances(correlation: float) -> None:
    own, pooled = gain_errors(np.random.default_rng(12), 3, 5, correlation, 1.0, repeats=4000)
    assert pooled[0] > 94
    assert pooled[1] < min(own[1], 6.6 + 0.8)  # 6.4 in benchmarks/family_error, two standard errors
    assert pooled[3] < 0.7 * own[3]


def test_a_noisy_baseline_raises_the_error_only_a_little() -> None:
    answers = runs(np.random.default_rng(10), 600, 3, 200, TRUTHS["seeds vary"], cells=5, noisy=3)
    largest = 6.8  # of benchmarks/family_error
    assert Family(answers, PRIOR_DF).numbers()[1] < largest + 2 * np.sqrt(largest * (100 - largest) / 600)


def test_a_family_needs_a_level() -> None:
    with pytest.raises(UserError, match="the level is"):
        holm_levels([0.1], 1.5)
