"""Effects of a grid's axes compared with scipy's analysis of variance and with other codings of the same designs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.ablation.statistics import grid_effects
from smoa_lightning.common.errors import UserError


def grid(rng: np.random.Generator, seeds: int = 3, **axes: list) -> tuple[dict[str, list], list[int], np.ndarray]:
    """Return axes, seeds and scores of a complete grid with effects of everything."""
    cells = [(*levels, seed) for levels in itertools.product(*axes.values()) for seed in range(seeds)]
    columns = [list(column) for column in zip(*cells, strict=True)]
    names = dict(zip(axes, columns, strict=False))
    numbers = np.array([[levels.index(level) for level in names[name]] for name, levels in axes.items()])
    moved = 0.3 * np.arange(2, 2 + len(axes)) @ numbers + 0.5 * np.array(columns[-1])
    return names, columns[-1], moved + rng.normal(size=len(cells))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_one_axis_without_blocks_is_scipys_one_way_anova(rng: np.random.Generator) -> None:
    groups = [rng.normal(size=5), rng.normal(1, 1, 4), rng.normal(size=6)]
    labels = [name for name, group in zip("abc", groups, strict=True) for _ in group]
    found = grid_effects(np.concatenate(groups), {"method": labels}, [0] * 15)
    expected = stats.f_oneway(*groups)
    assert (found.terms[0].f, found.terms[0].p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.terms[0].name == "method"
    assert found.residual_df == 12


def test_one_axis_of_two_levels_with_blocks_is_the_paired_t_test(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 6))
    found = grid_effects(np.concatenate([a, b]), {"method": ["a"] * 6 + ["b"] * 6}, [*range(6), *range(6)])
    expected = stats.ttest_rel(b, a)
    assert found.terms[0].f == pytest.approx(expected.statistic**2)
    assert found.terms[0].p == pytest.approx(expected.pvalue)
    (level,) = found.levels
    interval = expected.confidence_interval(0.95)
    assert (level.level, level.against) == ("b", "a")
    assert (level.value, level.low, level.high) == pytest.approx(((b - a).mean(), interval.low, interval.high))


def test_balanced_grid_is_the_classical_table(rng: np.random.Generator) -> None:
    axes, seeds, y = grid(rng, partition=["none", "blocks"], r=[4, 8, 16])
    found = grid_effects(y, axes, seeds)
    table = y.reshape(2, 3, 3)  # partition, r, seed
    means = {axis: table.mean(axis=tuple(i for i in range(3) if i != axis)) for axis in range(3)}
    ss = {axis: 18 / len(mean) * ((mean - y.mean()) ** 2).sum() for axis, mean in means.items()}
    cells = table.mean(axis=2)
    both = cells - means[0][:, None] - means[1] + y.mean()
    expected = [ss[0], ss[1], 3 * (both**2).sum()]
    residual = ((y - y.mean()) ** 2).sum() - sum(expected) - ss[2]
    assert [term.sum_of_squares for term in found.terms] == pytest.approx(expected)
    assert [term.df for term in found.terms] == [1, 2, 2]
    assert (found.residual_df, found.residual_variance) == (10, pytest.approx(residual / 10))
    assert found.terms[1].p == pytest.approx(stats.f.sf(expected[1] / 2 / (residual / 10), 2, 10))
    assert found.terms[1].partial_eta_squared == pytest.approx(expected[1] / (expected[1] + residual))
    assert [term.name for term in found.terms] == ["partition", "r", "partition x r"]
    assert found.levels[-1].value == pytest.approx(means[1][2] - means[1][0])
    assert [term.estimable for term in found.terms] == ["yes"] * 3


def sum_coded(labels: list) -> np.ndarray:
    """Return a deviation coding, which the code under test does not use."""
    levels = sorted(set(labels), key=str)
    rows = np.vstack([np.eye(len(levels) - 1), -np.ones(len(levels) - 1)])
    return rows[[levels.index(label) for label in labels]]


def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)


def test_unbalanced_grid_agrees_with_another_coding_and_the_normal_equations(rng: np.random.Generator) -> None:
    axes, seeds, y = grid(rng, partition=["none", "blocks"], r=[4, 8, 16], loss=["all", "response"])
    kept = rng.permutation(len(y))[:29]
    axes, seeds, y = {k: [v[i] for i in kept] for k, v in axes.items()}, [seeds[i] for i in kept], y[kept]
    coded = {name: sum_coded(labels) for name, labels in axes.items()}
    start = np.hstack([np.ones((29, 1)), sum_coded(seeds)])
    terms = {(name,): block for name, block in coded.items()}
    terms |= {(a, b): products(coded[a], coded[b]) for a, b in itertools.combinations(coded, 2)}

    def rss(names: list[tuple[str, ...]]) -> float:
        x = np.hstack([start, *(terms[name] for name in names)])
        return float(y @ y - y @ x @ np.linalg.solve(x.T @ x, x.T @ y))

    found = grid_effects(y, axes, seeds)
    variance = rss(list(terms)) / found.residual_df
    assert found.residual_variance == pytest.approx(variance)
    for term in found.terms:
        others = [name for name in terms if not set(term.axes) <= set(name)]
        expected = rss(others) - rss([*others, term.axes])
        assert term.sum_of_squares == pytest.approx(expected)
        assert term.f == pytest.approx(expected / terms[term.axes].shape[1] / variance)
        assert term.estimable == "yes"


def test_dropped_cells_leave_a_part_of_the_interaction(rng: np.random.Generator) -> None:
    axes, seeds, y = grid(rng, partition=["none", "blocks", "random"], num_subspaces=[1, 2, 4])
    kept = [i for i in range(len(y)) if axes["partition"][i] != "none" or axes["num_subspaces"][i] == 1]
    axes, seeds, y = {k: [v[i] for i in kept] for k, v in axes.items()}, [seeds[i] for i in kept], y[kept]
    partition, number, both = grid_effects(y, axes, seeds).terms
    assert (partition.df, number.df, both.df, both.full_df) == (2, 2, 2, 4)
    assert [term.estimable for term in (partition, number, both)] == ["yes", "yes", "in part"]
    found = grid_effects(y, axes, seeds)
    # the effect of num_subspaces, adjusted for partition, comes only from the two partitions where it varies
    inner = [i for i, name in enumerate(axes["partition"]) if name != "none"]
    alone = grid_effects(y[inner], {k: [v[i] for i in inner] for k, v in axes.items()}, [seeds[i] for i in inner])
    values = [[e.value for e in effects.levels if e.axis == "num_subspaces"] for effects in (found, alone)]
    # seeds are crossed with cells here, so leaving out "none" changes no block
    assert values[0] == pytest.approx(values[1])


def test_confounded_axes_are_reported_as_not_estimable(rng: np.random.Generator) -> None:
    modulation = ["none", "none", "weight", "weight"] * 3
    partition = ["none", "none", "blocks", "blocks"] * 3  # moves with the modulation
    y = rng.normal(size=12)
    found = grid_effects(
        y, {"modulation": modulation, "partition": partition, "r": [4, 8] * 6}, np.repeat([0, 1, 2], 4)
    )
    estimable = {term.name: term.estimable for term in found.terms}
    assert (estimable["modulation"], estimable["partition"], estimable["r"]) == ("no", "no", "yes")
    assert estimable["modulation x partition"] == "no"
    assert all(term.p is None for term in found.terms if term.estimable == "no")
    assert [level.value is None for level in found.levels] == [True, True, False]


def test_one_run_a_cell_of_two_axes_leaves_nothing_to_test_against(rng: np.random.Generator) -> None:
    axes, seeds, y = grid(rng, seeds=1, partition=["none", "blocks"], r=[4, 8, 16])
    found = grid_effects(y, axes, seeds)
    assert (found.residual_df, found.residual_variance) == (0, None)
    assert all(term.f is None and term.p is None for term in found.terms)
    assert found.levels[0].value is not None
    assert found.levels[0].low is None
    assert grid_effects(y, axes, seeds, interactions=False).terms[0].p is not None


def test_an_axis_of_one_level_is_left_out(rng: np.random.Generator) -> None:
    axes, seeds, y = grid(rng, partition=["none", "blocks"], r=[4])
    assert [term.name for term in grid_effects(y, axes, seeds).terms] == ["partition"]
    with pytest.raises(UserError, match=r"no axis has two levels .*r"):
        grid_effects(y, {"r": axes["r"]}, seeds)
    with pytest.raises(UserError, match="seeds has 1 entries for 6 runs"):
        grid_effects(y, axes, [0])
