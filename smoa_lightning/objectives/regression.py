"""Regression: the squared error of a number that belongs to a text or to a pair."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.evaluation.labels import head_outputs


def loss(network: Any, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Return the sum over the rows of (prediction - label)^2, in float32, and the number of rows.

    Args:
        network: A model with a head of one output.
        batch: A batch of labelled rows, see ``data.batches.collate.collate_labels``; a label of -100 does not count.
    """
    counted = batch["labels"] != IGNORED
    errors = head_outputs(network, batch)[:, 0] - batch["labels"].float()
    return (errors.square() * counted).sum(), int(counted.sum())
