"""Scored choices: one record for each item, and accuracies over all items."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from smoa_lightning.evaluation.prefix_trees import choice_log_likelihoods
from smoa_lightning.evaluation.scoring import choice_scores
from smoa_lightning.evaluation.standard_errors import groups_of, with_stderr
from smoa_lightning.evaluation.valid_scores import check_scores
from smoa_lightning.records.metric_table import ACCURACIES, COUNT, METRICS, item_scores, prediction_field


class ChoiceEvaluator(nn.Module):
    """Metrics of the choices' log-likelihoods, each with its standard error over items or groups of items.

    ``acc`` is the share of items where the labelled choice has the largest summed log-likelihood, ``acc_norm`` the
    largest log-likelihood per UTF-8 byte, ``acc_token`` per token. Ties go to the first choice, as in numpy's argmax.
    ``expected_acc`` is the mean probability of the labelled choice, the softmax of the summed log-likelihoods. ``nll``
    is the negative log-likelihood per token of the labelled choice, averaged over the items. The last two are no
    accuracies; they separate settings on fewer items than a mean of zeros and ones.

    Args:
        task: Name of the task, for messages.
    """

    def __init__(self, task: str = "item") -> None:
        super().__init__()
        self.task = task
        self.records: list[dict[str, Any]] = []

    def score(self, network: Any, batch: dict[str, Any], write: bool = True) -> list[dict[str, Any]]:
        """Score a batch of choice items and return a record of each.

        A record has the ``log_likelihood`` of each choice, the best choice under each normalisation, and ``nll`` and
        ``tokens`` of the labelled choice.

        Args:
            network: A causal language model, with its adapter on or off.
            batch: A batch of ``collate_choices``.
            write: Not used; ``ReplyEvaluator`` has the same argument.

        Raises:
            UserError: A score is not finite; no item of the batch counts.
        """
        likelihood, tokens = choice_log_likelihoods(network, batch)
        scores = choice_scores(likelihood, tokens, batch["num_bytes"], batch["num_choices"])
        sizes = [part.tolist() for part in tokens.split(batch["num_choices"].tolist())]
        records = []
        for item, count in enumerate(batch["num_choices"].tolist()):
            label = int(batch["label"][item])
            record: dict[str, Any] = {"row": int(batch["row"][item]), "label": label}
            record["log_likelihood"] = scores.log_likelihood[item, :count].tolist()
            check_scores(record["log_likelihood"], f"{self.task}, row {record['row'] + 1}")
            record |= {"nll": -record["log_likelihood"][label], "tokens": sizes[item][label]}
            for name, field in zip(ACCURACIES, scores, strict=True):
                record[prediction_field(name)] = int(field[item].argmax())
            records.append(record)
        self.records += records
        return records

    def compute(self, groups: Any = None) -> dict[str, float]:
        """Return the metrics over all processes, and remove the items.

        Args:
            groups: Row -> its group; None if all rows are independent.
        """
        records = gathered(self.records)
        self.reset()
        values, units = {COUNT: float(len(records))}, groups_of(records, groups)
        for name, metric in METRICS.items():
            scores = item_scores(records, name) if "choices" in metric.sources else None
            values |= {} if scores is None else with_stderr(name, scores, units)
        return values

    def reset(self) -> None:
        """Remove the items."""
        self.records = []


def gathered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of all processes in the order of their rows."""
    parts = [records]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = [[]] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, records)
    return sorted((record for part in parts for record in part), key=lambda record: record["row"])
