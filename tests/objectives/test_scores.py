"""Metrics of predicted classes and numbers against scikit-learn and scipy, and their standard errors by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.tasks import get_task
from smoa_lightning.evaluation.label_metrics import class_metrics, number_metrics
from smoa_lightning.evaluation.labels import LabelEvaluator


def predictions(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(seed)
    labels = source.integers(classes, size=count)
    scores = source.normal(size=(count, classes)) + 1.2 * np.eye(classes)[labels]
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_class_metrics_are_those_of_scikit_learn(classes: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = predictions(301, classes)
    found, best = class_metrics(scores, labels), scores.argmax(axis=1)
    assert found["acc"] == pytest.approx(metrics.accuracy_score(labels, best))
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(labels, best), abs=1e-6)
    assert found["nll"] == pytest.approx(metrics.log_loss(labels, np.exp(scores)), abs=1e-9)
    assert ("f1" in found) is (classes == 2)
    if classes == 2:
        assert found["f1"] == pytest.approx(metrics.f1_score(labels, best), abs=1e-6)
    for name in (name for name in found if not name.endswith("_stderr")):
        assert 0 < found[f"{name}_stderr"] < 0.2


def test_number_metrics_are_those_of_scipy() -> None:
    source = np.random.default_rng(1)
    labels = np.round(source.uniform(0, 5, size=211), 1)  # with ties
    found = number_metrics(values := labels + source.normal(size=211), labels)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(values, labels).statistic, abs=1e-9)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(values, labels).statistic, abs=1e-9)
    assert found["mse"] == pytest.approx(((values - labels) ** 2).mean())
    assert found["mse_stderr"] == pytest.approx(scipy.stats.sem((values - labels) ** 2))


def test_standard_errors_are_the_spread_over_samples() -> None:
    """400 samples of 200 items: the spread has a Monte Carlo error of 3.5 %."""
    drawn = [class_metrics(*predictions(200, 2, seed)) for seed in range(400)]
    for name in ("mcc", "f1", "acc", "nll"):
        spread = np.std([one[name] for one in drawn], ddof=1)
        assert np.mean([one[f"{name}_stderr"] for one in drawn]) == pytest.approx(spread, rel=0.1)


def test_correlation_stderr_is_that_of_normal_columns() -> None:
    """Of normal columns the standard error of Pearson's r is about (1 - r^2) / sqrt(n - 1)."""
    source = np.random.default_rng(2)
    one = source.normal(size=800)
    found = number_metrics(one + source.normal(size=800), one)
    assert found["pearson_stderr"] == pytest.approx((1 - found["pearson"] ** 2) / math.sqrt(799), rel=0.1)


def test_zero_by_zero_is_zero_without_a_standard_error() -> None:
    scores, labels = predictions(50, 2)
    scores = scores * 0 + np.log([0.9, 0.1])
    found = class_metrics(scores, labels)
    assert (found["mcc"], found["f1"]) == (0, 0)
    assert "mcc_stderr" not in found
    assert found["f1_stderr"] == 0  # 0 of some right ones: no 0 / 0
    assert "f1_stderr" not in class_metrics(scores, labels * 0)
    for predicted, gold in ((np.ones(9), np.arange(9.0)), (np.arange(9.0), np.ones(9))):
        found = number_metrics(predicted, gold)
        assert (found["pearson"], found["spearman"]) == (0, 0)
        assert set(found) == {"mse", "mse_stderr", "pearson", "spearman"}


class Head(torch.nn.Module):
    """Returns the rows of a table as outputs, by the first token."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
        return type("Output", (), {"logits": self.table[input_ids[:, 0]]})


def batch(rows: list[int], labels: list[float]) -> dict[str, torch.Tensor]:
    ids = torch.tensor(rows)[:, None]
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "row": torch.tensor(rows)}
    return made | {"labels": torch.tensor(labels, dtype=torch.float64)}


def test_items_hold_what_the_metrics_are_made_of() -> None:
    table = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, 0.5, 0.0]], dtype=torch.bfloat16)
    evaluator = LabelEvaluator(get_task("mnli").protocol(), "mnli")
    records = evaluator.score(Head(table), batch([2, 0], [1, 0])) + evaluator.score(Head(table), batch([1], [1]))
    assert [record["prediction_acc"] for record in records] == [1, 0, 2]
    expected = table.float().log_softmax(dim=-1)
    assert records[2]["log_likelihood"] == pytest.approx(expected[1].tolist())
    assert records[2]["nll"] == pytest.approx(-float(expected[1, 1]))
    metrics = evaluator.compute()
    assert (metrics["num_items"], metrics["acc"]) == (3, pytest.approx(2 / 3))
    assert evaluator.records == []


def test_a_score_that_is_not_finite_is_an_error() -> None:
    evaluator = LabelEvaluator(get_task("stsb").protocol(), "stsb")
    with pytest.raises(UserError, match="stsb, row 1"):
        evaluator.score(Head(torch.tensor([[math.nan]])), batch([0], [2.5]))
    assert evaluator.records == []
