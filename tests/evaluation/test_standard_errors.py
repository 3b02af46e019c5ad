"""Standard errors over items and over groups of items, of all kinds of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats

from smoa_lightning.evaluation.choice import ChoiceEvaluator
from smoa_lightning.evaluation.label_metrics import class_metrics, number_metrics
from smoa_lightning.evaluation.standard_errors import groups_of, mean_and_stderr
from smoa_lightning.evaluation.tasks import TaskEvaluation
from smoa_lightning.evaluation.text import answer_metrics, likelihood_metrics, reply_metrics

SOURCE = np.random.default_rng(3)
COUNT = 40
LABELS, NUMBERS = SOURCE.integers(2, size=COUNT), SOURCE.normal(size=COUNT)
SCORES = np.log(np.stack([share := SOURCE.uniform(0.1, 0.9, COUNT), 1 - share], axis=1))
WORDS = [" ".join(SOURCE.choice(list("abcdef"), size=9)) for _ in range(2 * COUNT)]
Metrics = Callable[[Sequence[int], Any], dict[str, float]]  # numbers of items, and their groups -> metrics
KINDS: dict[str, Metrics] = {
    "classes": lambda rows, groups: class_metrics(SCORES[rows], LABELS[rows], groups),
    "numbers": lambda rows, groups: number_metrics(NUMBERS[rows] + LABELS[rows], NUMBERS[rows], groups),
    "replies": lambda rows, groups: reply_metrics(
        [WORDS[n] for n in rows], [WORDS[n].replace("a", "z", 1) for n in rows], groups
    ),
    "answers": lambda rows, groups: answer_metrics([WORDS[n][0] for n in rows], [WORDS[n][4] for n in rows], groups),
    "likelihoods": lambda rows, groups: likelihood_metrics([*share[rows]], [n % 7 + 1 for n in rows], groups),
}


def test_without_groups_it_is_scipys() -> None:
    assert mean_and_stderr([1.0, 2.0, 6.0]) == pytest.approx((3, scipy.stats.sem([1, 2, 6])))


def test_with_groups_it_is_the_cluster_robust_error() -> None:
    """The sandwich estimator of a mean by its definition, and a bootstrap over groups."""
    groups = SOURCE.integers(30, size=200)
    values = SOURCE.normal(size=30)[groups] + SOURCE.normal(size=200)
    sums = np.bincount(groups, weights=values - values.mean())
    robust = np.sqrt(30 / 29 * (sums**2).sum()) / 200
    mean, error = mean_and_stderr(values, groups.tolist())
    assert (mean, error) == pytest.approx((values.mean(), robust))
    totals, sizes = np.bincount(groups, weights=values), np.bincount(groups)
    drawn = SOURCE.integers(30, size=(4000, 30))
    assert error == pytest.approx(np.std(totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), ddof=1), rel=0.08)
    assert error > 1.5 * mean_and_stderr(values)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_each_item_in_its_group_adds_no_information(kind: str) -> None:
    rows = np.arange(COUNT)
    alone = KINDS[kind](rows, None)
    doubled = KINDS[kind](np.tile(rows, 2), [*range(COUNT), *range(COUNT)])
    free = KINDS[kind](np.tile(rows, 2), None)
    for name, value in alone.items():
        if name not in ("distinct_1", "distinct_2"):
            assert doubled[name] == pytest.approx(value, rel=1e-6), name
            assert not name.endswith("_stderr") or value == 0 or free[name] < 0.85 * value, name


@pytest.mark.parametrize("kind", KINDS)
def test_one_group_or_item_has_no_standard_error(kind: str) -> None:
    for rows, groups in ((np.arange(COUNT), [0] * COUNT), (np.arange(1), None), (np.arange(1), ["a"])):
        found = KINDS[kind](rows, groups)
        assert found
        assert not [name for name in found if name.endswith("_stderr")]


def test_evaluators_use_the_groups_of_their_rows() -> None:
    records = [{"row": row} for row in (4, 0, 2)]
    assert groups_of(records, np.array([7, 0, 7, 0, 9])) == [9, 7, 7]
    assert groups_of(records, np.arange(5)) is groups_of(records, None) is None
    protocol = SimpleNamespace(selection_metric="acc")
    evaluation = TaskEvaluation({"one": protocol, "two": protocol}, None)  # type: ignore[arg-type, dict-item]
    for evaluator in evaluation.evaluators:
        assert isinstance(evaluator, ChoiceEvaluator)
        evaluator.records = [
            {"row": row, "label": 0, "log_likelihood": [0.0, float(row // 2)], "nll": 1.0, "tokens": 1}
            | {f"prediction_{name}": row // 4 for name in ("acc", "acc_norm", "acc_token")}
            for row in range(8)
        ]
    found = evaluation.compute({"one": np.arange(8) // 2})
    right = np.repeat([1.0, 0.0], 4)
    assert found["one/acc_stderr"] == pytest.approx(scipy.stats.sem(right[::2]))
    assert found["two/acc_stderr"] == pytest.approx(scipy.stats.sem(right))
    assert found["one/expected_acc"] == found["two/expected_acc"] == pytest.approx(np.mean(1 / (1 + np.exp(range(4)))))
