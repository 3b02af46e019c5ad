"""Regression: the squared error of a number that belongs to a text or to a pair."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.evaluation.labels import head_outputs
from smoa_lightning.objectives.distillation import DistillationConfig, DistilledLoss


def loss(network: Any, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Return the sum over the rows of (prediction - label)^2, in float32, and the number of rows.

    Args:
        network: A model with a head of one output.
        batch: A batch of labelled rows, see ``data.batches.collate.collate_labels``; a label of -100 does not count.
    """
    counted = batch["labels"] != IGNORED
    errors = head_outputs(network, batch)[:, 0] - batch["labels"].float()
    return (errors.square() * counted).sum(), int(counted.sum())


def distilled(network: Any, teacher: Any, batch: dict[str, Any], settings: DistillationConfig) -> DistilledLoss:
    """Return the sum over the rows of (1 - w) (prediction - label)^2 + w (prediction - teacher's prediction)^2.

    A number is not a distribution. The squared error is twice the KL of two normal distributions of variance 1.

    Args:
        network: A model with a head of one output.
        teacher: A model with a head of one output.
        batch: A batch of labelled rows, see ``data.batches.collate.collate_labels``; a label of -100 does not count.
        settings: The weight w.
    """
    counted = batch["labels"] != IGNORED
    with torch.no_grad():
        wanted = head_outputs(teacher, batch)[:, 0]
    found = head_outputs(network, batch)[:, 0]
    errors = {"squared_error": found - batch["labels"].float(), "teacher_squared_error": found - wanted}
    terms = {name: (error.square() * counted).sum() for name, error in errors.items()}
    own, teachers = terms.values()
    loss = (1 - settings.weight) * own + settings.weight * teachers
    return DistilledLoss(loss, int(counted.sum()), {name: term.detach() for name, term in terms.items()})
