"""Groups of items that are not independent: scores of groups, cluster-robust errors, and reports that use them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from smoa_lightning.ablation.planning.variation import _per_item
from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.paired_cells import groups_of
from smoa_lightning.ablation.statistics import (
    by_groups,
    crossed_difference,
    mean_squares,
    standard_error,
    variances_of,
)
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.items import read_metrics, read_right

from .made_study import CELLS, make_study


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(14)


def test_scores_of_groups_have_the_mean_of_the_items_and_the_cluster_robust_error(rng: np.random.Generator) -> None:
    d, groups = rng.normal(size=(2, 60)), rng.integers(0, 12, 60).tolist()
    found = by_groups(d, groups)
    assert found.shape == (2, 12)
    assert found.mean(axis=1) == pytest.approx(d.mean(axis=1))
    sums = np.array([[(row - row.mean())[np.array(groups) == g].sum() for g in range(12)] for row in d])
    robust = np.sqrt(12 / 11 * (sums**2).sum(axis=1)) / 60  # the sandwich estimator of a mean, by its definition
    assert found.std(axis=1, ddof=1) / np.sqrt(12) == pytest.approx(robust)


def test_equal_groups_are_the_t_test_over_their_means(rng: np.random.Generator) -> None:
    run = rng.normal(size=(1, 40)) + np.repeat(rng.normal(size=10), 4)
    d = np.tile(run, (3, 1))  # the same run three times: only items vary
    found = crossed_difference(d, np.zeros_like(d), groups=np.repeat(np.arange(10), 4).tolist())
    expected = stats.ttest_1samp(run.reshape(10, 4).mean(axis=1), 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.n_items, found.n_groups) == (40, 10)


def test_one_item_in_each_group_changes_nothing(rng: np.random.Generator) -> None:
    d = rng.normal(size=(3, 20))
    assert crossed_difference(d, 0 * d, groups=list("abcdefghijklmnopqrst")) == crossed_difference(d, 0 * d)


def test_intervals_over_groups_cover_where_those_over_items_do_not(rng: np.random.Generator) -> None:
    def coverage(d: np.ndarray) -> float:
        error, df = standard_error(mean_squares(d), *d.shape[1:])
        return float((np.abs(d.mean(axis=(1, 2))) <= special.stdtrit(df, 0.975) * error).mean())

    groups = np.repeat(np.arange(40), 5)
    d = rng.normal(0, 0.1, (2000, 3, 1)) + rng.normal(size=(2000, 1, 40))[:, :, groups]
    d = d + rng.normal(size=(2000, 1, 200)) + rng.normal(size=(2000, 3, 200))
    assert coverage(d) < 0.85
    assert coverage(by_groups(d, groups.tolist())) == pytest.approx(0.95, abs=0.012)


def test_a_plan_has_the_variance_of_groups(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(10), 4)
    table = rng.normal(size=(3, 1)) + rng.normal(size=10)[groups] + rng.normal(size=(3, 40))
    variances = variances_of([(_per_item(table, groups.tolist()), 3, 40)])
    squares = mean_squares(table.reshape(3, 10, 4).mean(axis=2))
    expected = variances_of([(squares, 3, 10)])
    assert variances.seeds == pytest.approx(expected.seeds)
    assert variances.of_mean(3, 40) == pytest.approx(expected.of_mean(3, 10))
    alone = _per_item(table, list(range(40)))
    assert alone == pytest.approx(mean_squares(table))


def test_impossible_groups_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(UserError, match="3 groups for 4 items"):
        by_groups(rng.normal(size=(2, 4)), [1, 1, 2])
    with pytest.raises(UserError, match="all 4 items are of one group"):
        by_groups(rng.normal(size=(2, 4)), [1, 1, 1, 1])


def test_a_report_uses_the_groups_of_the_item_files(tmp_path: Path) -> None:
    scores = make_study(tmp_path, CELLS)
    for file in tmp_path.glob("runs/*/items.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        grouped = [line | {"group": line["row"] // 5 * 5} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in grouped))
    analysis = analyse(read_study(tmp_path))
    found = analysis.comparison("method=better")
    groups = [item // 5 for item in range(300)]
    expected = crossed_difference(scores["method=better"], scores["method=lora"], pooled=found.pooled, groups=groups)
    assert (found.difference.p, found.difference.n_groups) == (pytest.approx(expected.p), 60)
    assert found.test == "seeds and groups of items"
    assert "3 seeds, 300 items in 60 groups: established." in found.verdict.sentence
    assert analysis.gains[0].difference.n_groups == 60


def test_groups_are_those_of_all_runs_that_are_compared() -> None:
    def cell(*groups: dict[str, str]) -> Any:
        return SimpleNamespace(runs=[SimpleNamespace(groups=each) for each in groups])

    first, rest = {"a": "a", "b": "a", "c": "c"}, {"b": "b", "c": "c", "d": "b"}  # the second run has no row a
    assert groups_of((cell({}), cell({})), "abcd") is None
    assert groups_of((cell({}, {}), cell({}, first)), "abcd") == ["a", "a", "c", "d"]
    assert groups_of((cell(first), cell(first, first)), "abc") == ["a", "a", "c"]
    for cells in ((cell(first), cell(rest)), (cell(first, rest),)):
        a, b, c, d, e = groups_of(cells, "abcde")
        assert a == b == d
        assert len({a, c, e}) == 3


def test_groups_of_an_item_file(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    lines = [{"row": row, "label": 1, "prediction_acc": 1, "group": row // 2 * 2} for row in range(4)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores, groups = read_metrics(file, ["acc"])
    assert scores["acc"] == read_right(file, "acc") == {("", row): 1.0 for row in range(4)}
    assert groups == {("", 0): ("", 0), ("", 1): ("", 0), ("", 2): ("", 2), ("", 3): ("", 2)}
    file.write_text(json.dumps(lines[0] | {"group": "a"}) + "\n")
    with pytest.raises(UserError, match="'group' is 'a' and not a whole number"):
        read_metrics(file, ["acc"])
