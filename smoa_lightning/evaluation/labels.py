"""Scored labels: the outputs of a new head, one record for each item, and metrics over all items."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from smoa_lightning.data.tasks.base import Classification, Labelling
from smoa_lightning.evaluation.choice import gathered
from smoa_lightning.evaluation.label_metrics import class_metrics, number_metrics
from smoa_lightning.evaluation.standard_errors import groups_of
from smoa_lightning.evaluation.valid_scores import check_scores
from smoa_lightning.records.metric_table import COUNT, prediction_field

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")


def head_outputs(network: Any, batch: dict[str, Any]) -> Tensor:
    """Return the outputs of the head, (rows, outputs) in float32.

    Args:
        network: A model with a new head.
        batch: A batch of ``collate_labels`` or ``collate_images``.
    """
    logits: Tensor = network(**{name: batch[name] for name in INPUTS if name in batch}).logits
    return logits.float()


class LabelEvaluator(nn.Module):
    """Metrics of the classes or numbers that a new head predicts.

    Args:
        protocol: The protocol of the task.
        task: Name of the task, for messages.
    """

    def __init__(self, protocol: Labelling, task: str = "item") -> None:
        super().__init__()
        self.protocol, self.task = protocol, task
        self.records: list[dict[str, Any]] = []

    def score(self, network: Any, batch: dict[str, Any], write: bool = True) -> list[dict[str, Any]]:
        """Score a batch of labelled items and return a record of each.

        A class has ``log_likelihood`` (log p of each class), ``nll`` (nats, of its one target) and the best class; a
        number has ``prediction``.

        Args:
            network: A model with a new head, with its adapter on or off.
            batch: A batch of ``collate_labels``.
            write: Not used; ``ReplyEvaluator`` has the same argument.

        Raises:
            UserError: A score is not finite; no item of the batch counts.
        """
        outputs = head_outputs(network, batch)
        records = []
        for row, label, values in zip(batch["row"].tolist(), batch["labels"].tolist(), outputs, strict=True):
            record: dict[str, Any] = {"row": row}
            if isinstance(self.protocol, Classification):
                scores = values.log_softmax(dim=-1).tolist()
                best = int(np.argmax(scores))
                record |= {"label": int(label), "log_likelihood": scores, prediction_field("acc"): best}
                record |= {"nll": -scores[int(label)], "tokens": 1}
            else:
                scores = values.tolist()
                record |= {"label": label, "prediction": scores[0]}
            check_scores(scores, f"{self.task}, row {row + 1}")
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
        labels, units = np.array([record["label"] for record in records]), groups_of(records, groups)
        if isinstance(self.protocol, Classification):
            scores = np.array([record["log_likelihood"] for record in records])
            metrics = class_metrics(scores, labels, units)
        else:
            metrics = number_metrics(np.array([record["prediction"] for record in records]), labels, units)
        return {COUNT: float(len(records)), **metrics}

    def reset(self) -> None:
        """Remove the items."""
        self.records = []
