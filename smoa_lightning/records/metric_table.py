"""Every metric, once: which direction is better, its unit, which items have it, and where it is shown.

Nothing else in the package lists names of metrics. The table is in ``records`` and not in ``evaluation``, since the
columns of TensorBoard, study files, plans and reports read it, and those import no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["maximize", "minimize"]
Unit = Literal["share", "points of 100", "nats per token", "words", "cosine", ""]
# What a metric is taken of: scored choices, the likelihood of gold replies, the answers in written replies, written
# replies as texts, or the general text of the callback ``Forgetting``.
Source = Literal["choices", "gold replies", "answers", "reply texts", "general text"]
Item = Mapping[str, Any]  # a line of items.jsonl

COUNT = "num_items"  # stands beside the metrics: how many items they are taken of
COMMON = "nll"  # what every task has: the primary metric of tasks whose own ones differ


@dataclass(frozen=True)
class Metric:
    """One metric; its place in ``METRICS`` is its place in tables.

    Attributes:
        name: Its name in records, after ``report/``, ``base/`` or ``selection/``.
        direction: Which direction is better; None where neither is.
        unit: What it is counted in; empty for a perplexity, which has none.
        sources: What it is taken of.
        item: Line of ``items.jsonl`` -> the score whose mean over the items it is, or None where the line has none.
            None where no field of the lines gives it.
        is_accuracy: Whether it is the share of items that are right.
        is_mean: Whether it is a mean over items.
        has_stderr: Whether ``<name>_stderr`` is beside it.
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
    in_hparams: bool = False
    in_progress_bar: bool = False

    @property
    def selects(self) -> bool:
        """Whether it can select a checkpoint: it has a better direction, and selection rows have it."""
        return self.direction is not None and self.sources != ("general text",)

    @property
    def needs_reply(self) -> bool:
        """Whether tasks with replies have to let the model write them for it."""
        return "answers" in self.sources or "reply texts" in self.sources


def prediction_field(accuracy: str) -> str:
    """Return the field of a line of ``items.jsonl`` that holds the choice which is best by an accuracy's scores.

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


def _per_token(item: Item) -> float | None:
    return item["nll"] / item["tokens"] if "nll" in item else None


def _unparsed(item: Item) -> float | None:
    return float(item["answer"] is None) if "answer" in item else None


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _accuracy("acc", "choices", "answers", in_progress_bar=True),
        _accuracy("acc_norm", "choices"),
        _accuracy("acc_token", "choices"),
        Metric("unparsed_rate", "minimize", "share", ("answers",), _unparsed),
        Metric("perplexity", "minimize", "", ("gold replies",), is_mean=False, in_hparams=True, in_progress_bar=True),
        Metric(COMMON, "minimize", "nats per token", ("choices", "gold replies"), _per_token, in_hparams=True),
        Metric("bleu", "maximize", "points of 100", ("reply texts",), is_mean=False),
        Metric("chrf", "maximize", "points of 100", ("reply texts",), is_mean=False),
        Metric("rouge_l", "maximize", "share", ("reply texts",)),
        Metric("token_f1", "maximize", "share", ("reply texts",)),
        Metric("bert_score", "maximize", "cosine", ("reply texts",)),
        Metric("distinct_1", "maximize", "share", ("reply texts",), is_mean=False, has_stderr=False),
        Metric("distinct_2", "maximize", "share", ("reply texts",), is_mean=False, has_stderr=False),
        Metric("reply_length", None, "words", ("reply texts",)),
        Metric("general_perplexity", "minimize", "", ("general text",), is_mean=False),
    )
}
# In the order of the fields of ``evaluation.scoring.ChoiceScores``: by the sum, per byte, per token.
ACCURACIES = tuple(name for name, metric in METRICS.items() if metric.is_accuracy)


def better(name: str, score: float, best: float) -> bool:
    """Say whether a score of a metric beats the best one so far.

    >>> better("acc", 0.6, 0.5), better("selection/perplexity", 20.0, 21.0)
    (True, True)
    """
    metric = METRICS[name.rpartition("/")[2]]
    return score < best if metric.direction == "minimize" else score > best
