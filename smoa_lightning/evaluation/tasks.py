"""The evaluation of one or several tasks: an evaluator for each task, and their metrics in one dictionary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from smoa_lightning.data.tasks import Generation, Protocol
from smoa_lightning.data.tasks.base import Labelling
from smoa_lightning.evaluation.choice import ChoiceEvaluator, gathered
from smoa_lightning.evaluation.labels import LabelEvaluator
from smoa_lightning.evaluation.reply import ReplyEvaluator
from smoa_lightning.evaluation.standard_errors import groups_of, with_stderr
from smoa_lightning.records.metric_table import COUNT, METRICS, item_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Divergence = Callable[[Any, dict[str, Any]], list[dict[str, float]]]


class TaskEvaluation(nn.Module):
    """The evaluators of one pass over the scored rows.

    Args:
        protocols: Task -> its protocol, in the order of the loaders.
        tokenizer: The tokenizer of the base model.
        selecting: Whether the pass only selects a checkpoint. Then replies are generated only if the selection metric
            needs them.
        max_new_tokens: Longest reply in tokens; None follows the task.
        num_beams: Width of the beam search, 1 is greedy; None follows the task.
        ends: Task -> tokens that end a reply; None: EOS.
        bert_score: Encoder for BERTScore; None leaves it out.
        divergence: Model and batch -> further fields of the record of each item, its KL to a teacher; None: no teacher.
    """

    def __init__(
        self,
        protocols: Mapping[str, Protocol],
        tokenizer: PreTrainedTokenizerBase,
        selecting: bool = False,
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        ends: Mapping[str, list[int]] | None = None,
        bert_score: str | None = None,
        divergence: Divergence | None = None,
    ) -> None:
        super().__init__()
        self.divergence = divergence
        self.names = list(protocols)

        def evaluator(name: str, protocol: Protocol) -> nn.Module:
            if isinstance(protocol, Generation):
                end = (ends or {}).get(name)
                return ReplyEvaluator(protocol, tokenizer, max_new_tokens, num_beams, end, bert_score, name)
            return LabelEvaluator(protocol, name) if isinstance(protocol, Labelling) else ChoiceEvaluator(name)

        self.evaluators = nn.ModuleList(evaluator(name, protocol) for name, protocol in protocols.items())
        self.write = [not selecting or METRICS[p.selection_metric].needs_reply for p in protocols.values()]

    def score(self, network: Any, batch: dict[str, Any], position: int = 0) -> list[dict[str, Any]]:
        """Score a batch of a task and return a record of each item; with several tasks it names the task."""
        records = self.evaluators[position].score(network, batch, self.write[position])  # type: ignore[operator]
        if self.divergence is not None:
            for record, fields in zip(records, self.divergence(network, batch), strict=True):
                record |= fields  # the evaluator keeps these records too
        return [{"task": self.names[position], **r} for r in records] if len(self.names) > 1 else records

    def compute(self, groups: Mapping[str, Any] | None = None) -> dict[str, float]:
        """Return the metrics of the task; with several tasks as ``<task>/<metric>``, and their means as ``<metric>``.

        The means are over the metrics that all tasks have. Every task has the same weight.

        Args:
            groups: Task -> row -> its group, the unit of standard errors; None if all rows are independent.
        """
        values: dict[str, dict[str, float]] = {}
        for name, evaluator in zip(self.names, self.evaluators, strict=True):
            own = (groups or {}).get(name)
            taught = {} if self.divergence is None else _of_teacher(gathered(evaluator.records), own)  # type: ignore[arg-type]
            values[name] = evaluator.compute(own) | taught  # type: ignore[operator]
        if len(self.names) == 1:
            return values[self.names[0]]
        single = {f"{name}/{metric}": value for name, own in values.items() for metric, value in own.items()}
        return means(list(values.values())) | {COUNT: sum(own[COUNT] for own in values.values())} | single


def _of_teacher(records: list[dict[str, Any]], groups: Any) -> dict[str, float]:
    """Return the metrics that compare a model with its teacher, with standard errors."""
    found: dict[str, float] = {}
    for name, metric in METRICS.items():
        scores = item_scores(records, name) if "teacher" in metric.sources else None
        found |= {} if scores is None else with_stderr(name, scores, groups_of(records, groups))
    return found


def means(tables: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric that all tables have, and its standard error, sqrt(sum s^2) / n.

    >>> means([{"acc": 0.5, "acc_stderr": 0.03}, {"acc": 0.7, "acc_stderr": 0.04, "nll": 1.0}])
    {'acc': 0.6, 'acc_stderr': 0.025}
    """
    found = {}
    for name in [name for name in tables[0] if all(name in table for table in tables)]:
        column = [table[name] for table in tables]
        total = math.sqrt(sum(value**2 for value in column)) if name.endswith("_stderr") else sum(column)
        found[name] = total / len(tables)
    return found
