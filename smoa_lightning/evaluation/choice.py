"""Scored choices: one record for each item, and accuracies over all items."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from smoa_lightning.evaluation.choice_metrics import ChoiceAccuracy
from smoa_lightning.evaluation.prefix_trees import choice_log_likelihoods
from smoa_lightning.evaluation.scoring import choice_scores
from smoa_lightning.evaluation.valid_scores import check_scores
from smoa_lightning.records.metric_table import ACCURACIES, prediction_field


class ChoiceEvaluator(nn.Module):
    """Accuracy of the choice with the best log-likelihood, with three normalisations.

    Args:
        task: Name of the task, for messages.
    """

    def __init__(self, task: str = "item") -> None:
        super().__init__()
        self.task = task
        self.accuracy = ChoiceAccuracy()

    def score(self, network: Any, batch: dict[str, Any], write: bool = True) -> list[dict[str, Any]]:
        """Score a batch of choice items and return a record of each.

        Args:
            network: A causal language model, with its adapter on or off.
            batch: A batch of ``collate_choices``.
            write: Not used; ``ReplyEvaluator`` has the same argument.

        Raises:
            UserError: A score is not finite; no item of the batch counts.
        """
        likelihood, tokens = choice_log_likelihoods(network, batch)
        scores = choice_scores(likelihood, tokens, batch["num_bytes"], batch["num_choices"])
        records = []
        for item, count in enumerate(batch["num_choices"].tolist()):
            record: dict[str, Any] = {"row": int(batch["row"][item]), "label": int(batch["label"][item])}
            record["log_likelihood"] = scores.log_likelihood[item, :count].tolist()
            check_scores(record["log_likelihood"], f"{self.task}, row {record['row'] + 1}")
            for name, field in zip(ACCURACIES, scores, strict=True):
                record[prediction_field(name)] = int(field[item].argmax())
            records.append(record)
        self.accuracy.update(scores, batch["label"])
        return records

    def compute(self) -> dict[str, float]:
        """Return the metrics over all processes, and remove the items."""
        values = {name: float(value) for name, value in self.accuracy.compute().items()}
        self.accuracy.reset()
        return values

    def reset(self) -> None:
        """Remove the items."""
        self.accuracy.reset()


def gathered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of all processes in the order of their rows."""
    parts = [records]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts = [[]] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, records)
    return sorted((record for part in parts for record in part), key=lambda record: record["row"])
