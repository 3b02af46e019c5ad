"""The table of all metrics: the better direction, the unit, the score of an item, and where the metric is shown.

No other file lists names of metrics. The table is in ``records`` and not in ``evaluation``, because TensorBoard's
columns, study files, plans and reports read it without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["maximize", "minimize"]
Unit = Literal["share", "points of 100", "nats per token", "bits", "words", "cosine", ""]
# What a metric is computed from: scored choices, the likelihood of gold replies, the answers in generated replies, the
# texts of generated replies, the general text of the callback ``Forgetting``, the classes or numbers of a new head, or
# the likelihood of random codes, or the distributions of a teacher.
Source = Literal[
    "choices", "gold replies", "answers", "reply texts", "general text", "classes", "numbers", "codes", "teacher"
]
UNMEASURED = ("rank/", "cost/")  # metrics that are negative if they were not measured
Item = Mapping[str, Any]  # a line of items.jsonl, or of general_items.jsonl

GENERAL_TEXT: tuple[Source, ...] = ("general text",)
COUNT = "num_items"  # saved with the metrics: the number of items
COMMON = "nll"  # every task has it: the primary metric of several tasks with different primary metrics


@dataclass(frozen=True)
class Metric:
    """One metric. Tables show the metrics in the order of ``METRICS``.

    Attributes:
        name: Its name in records, after ``report/``, ``base/`` or ``selection/``.
        direction: The better direction; None if there is none.
        unit: Its unit; empty for a perplexity.
        sources: What it is computed from.
        item: Line of ``items.jsonl`` -> the item's score, or None if the line has no score. The metric is the mean of
            these scores. None if the lines do not hold it.
        is_accuracy: Whether it is the share of right items.
        is_mean: Whether it is a mean over items.
        has_stderr: Whether ``<name>_stderr`` is saved with it.
        in_tables: Whether the tables of a run have a column for it.
        in_hparams: Whether TensorBoard's HPARAMS tab has a column for it.
        in_progress_bar: Whether the progress bar shows it.
    """

    name: str
    direction: Direction | None
    unit: Unit
    sources: tuple[Source, ...]
    item: Callable[[Item], float | None] | None = None
    is_accuracy: bool = False
    is_mean: bool = True
    has_stderr: bool = True
    in_tables: bool = True
    in_hparams: bool = False
    in_progress_bar: bool = False

    @property
    def selects(self) -> bool:
        """Whether it can select a checkpoint: it has a direction, and selection rows have it."""
        return self.direction is not None and not self.of_general_text

    @property
    def of_general_text(self) -> bool:
        """Whether its items are the documents of the general text."""
        return self.sources == GENERAL_TEXT

    @property
    def needs_reply(self) -> bool:
        """Whether the model must generate replies for it."""
        return "answers" in self.sources or "reply texts" in self.sources


def prediction_field(accuracy: str) -> str:
    """Return the field of ``items.jsonl`` with the best choice by the scores of an accuracy.

    >>> prediction_field("acc_norm")
    'prediction_acc_norm'
    """
    return f"prediction_{accuracy}"


def _accuracy(name: str, *sources: Source, in_progress_bar: bool = False) -> Metric:
    field, of_answers = prediction_field(name), "answers" in sources

    def right(item: Item) -> float | None:
        if field in item:
            return float(item[field] == item["label"])
        return float(item["correct"]) if of_answers and "correct" in item else None

    return Metric(
        name,
        "maximize",
        "share",
        sources,
        right,
        is_accuracy=True,
        in_hparams=True,
        in_progress_bar=in_progress_bar,
    )


def _correlation(name: str, *sources: Source) -> Metric:
    return Metric(name, "maximize", "", sources, is_mean=False, in_hparams=True, in_progress_bar=True)


def _expected(item: Item) -> float | None:
    """Return the probability of the right choice: softmax of the summed log-likelihoods, in float64.

    >>> round(_expected({"label": 1, "log_likelihood": [-3.0, -2.0]}), 6)
    0.731059
    """
    scores = item.get("log_likelihood")
    if scores is None:
        return None
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    return weights[item["label"]] / sum(weights)


def _per_token(item: Item) -> float | None:
    return item["nll"] / item["tokens"] if "nll" in item else None


def _squared_error(item: Item) -> float | None:
    return (item["prediction"] - item["label"]) ** 2 if "prediction" in item else None


def _divergence(item: Item) -> float | None:
    return item["kl"] / item["kl_positions"] if item.get("kl_positions") else None


def _of_document(item: Item) -> float | None:
    return item["text_nll"] / item["tokens"] if "text_nll" in item else None


def _stored_bits(item: Item) -> float | None:
    return item["code_bits"] - item["nll"] / math.log(2) if "code_bits" in item else None


def _unparsed(item: Item) -> float | None:
    return float(item["answer"] is None) if "answer" in item else None


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _accuracy("acc", "choices", "answers", "classes", in_progress_bar=True),
        Metric("expected_acc", "maximize", "share", ("choices", "classes"), _expected, in_hparams=True),
        _accuracy("acc_norm", "choices"),
        _accuracy("acc_token", "choices"),
        _correlation("mcc", "classes"),
        _correlation("f1", "classes"),
        _correlation("pearson", "numbers"),
        _correlation("spearman", "numbers"),
        Metric("mse", "minimize", "", ("numbers",), _squared_error),
        Metric("kl", "minimize", "nats per token", ("teacher",), _divergence, in_hparams=True),
        Metric("stored_bits", "maximize", "bits", ("codes",), _stored_bits, in_hparams=True, in_progress_bar=True),
        Metric("unparsed_rate", "minimize", "share", ("answers",), _unparsed),
        Metric("perplexity", "minimize", "", ("gold replies",), is_mean=False, in_hparams=True, in_progress_bar=True),
        Metric(
            COMMON, "minimize", "nats per token", ("choices", "gold replies", "classes"), _per_token, in_hparams=True
        ),
        Metric("bleu", "maximize", "points of 100", ("reply texts",), is_mean=False),
        Metric("chrf", "maximize", "points of 100", ("reply texts",), is_mean=False),
        Metric("rouge_l", "maximize", "share", ("reply texts",)),
        Metric("token_f1", "maximize", "share", ("reply texts",)),
        Metric("bert_score", "maximize", "cosine", ("reply texts",)),
        Metric("distinct_1", "maximize", "share", ("reply texts",), is_mean=False, has_stderr=False),
        Metric("distinct_2", "maximize", "share", ("reply texts",), is_mean=False, has_stderr=False),
        Metric("reply_length", None, "words", ("reply texts",)),
        Metric("general_perplexity", "minimize", "", GENERAL_TEXT, is_mean=False),
        Metric("general_nll", "minimize", "nats per token", GENERAL_TEXT, _of_document, in_tables=False),
    )
}
# In the order of the fields of ``evaluation.scoring.ChoiceScores``: by the sum, per byte, per token.
ACCURACIES = tuple(name for name, metric in METRICS.items() if metric.is_accuracy)


def item_scores(items: Iterable[Item], name: str) -> list[float] | None:
    """Return the score of each item by a metric; None if the metric has no scores of items, or an item has none.

    >>> item_scores([{"label": 1, "prediction_acc": 1}, {"label": 0, "prediction_acc": 1}], "acc")
    [1.0, 0.0]
    """
    score = METRICS[name].item if name in METRICS else None
    if score is None:
        return None
    found: list[float] = []
    for item in items:
        value = score(item)
        if value is None:
            return None
        found.append(value)
    return found


def better(name: str, score: float, best: float) -> bool:
    """Return whether a score of a metric is better than the best score so far.

    >>> better("acc", 0.6, 0.5), better("selection/perplexity", 20.0, 21.0)
    (True, True)
    """
    metric = METRICS[name.rpartition("/")[2]]
    return score < best if metric.direction == "minimize" else score > best


def measured(name: str, value: float | None) -> float | None:
    """Return a metric of a record; ``None`` for a rank or a cost that was not measured, which is negative in a record.

    >>> measured("rank/effective_mean", -1.0), measured("rank/effective_mean", 3.5), measured("report/acc", None)
    (None, 3.5, None)
    """
    return None if value is None or (name.startswith(UNMEASURED) and value < 0) else value
