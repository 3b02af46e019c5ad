"""Classification: the cross-entropy of the class of a text, a pair or an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.evaluation.labels import head_outputs
from smoa_lightning.objectives.distillation import DistillationConfig, DistilledLoss, distilled_loss, item_divergences
from smoa_lightning.objectives.top_distributions import TOP


def loss(network: Any, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Return the sum over the rows of -log p(class) in nats, in float32, and the number of rows.

    Args:
        network: A model with a classification head.
        batch: A batch of labelled rows, see ``collate_labels`` and ``collate_images`` of ``data.batches.collate``;
            a label of -100 does not count.
    """
    labels = batch["labels"].long()
    summed = F.cross_entropy(head_outputs(network, batch), labels, reduction="sum", ignore_index=IGNORED)
    return summed, int((labels != IGNORED).sum())


def distilled(network: Any, teacher: Any, batch: dict[str, Any], settings: DistillationConfig) -> DistilledLoss:
    """Return the loss of the classes of the rows with a teacher.

    Args:
        network: A model with a classification head.
        teacher: A model with a head for the same classes, in the same order; None if the batch has its distributions.
        batch: A batch of labelled rows, see ``data.batches.collate.collate_labels``; a label of -100 does not count.
        settings: Weight and temperature.
    """
    with torch.no_grad():
        wanted = batch[TOP] if teacher is None else counted_logits(teacher, batch, settings)
    labels = batch["labels"].long()
    return distilled_loss(counted_logits(network, batch, settings), wanted, labels[labels != IGNORED], settings)


def counted_logits(network: Any, batch: dict[str, Any], settings: DistillationConfig) -> Tensor:
    """Return the logits (rows that count, classes)."""
    return head_outputs(network, batch)[batch["labels"] != IGNORED]


def row_contents(batch: dict[str, Any], settings: DistillationConfig) -> list[tuple[bytes, int]]:
    """Return what decides the logits of each row, its tokens or pixels, and 1 if it counts."""
    inputs = [batch[name].cpu().numpy() for name in ("pixel_values", "input_ids", "token_type_ids") if name in batch]
    mask = batch.get("attention_mask")
    ends = [None] * len(inputs[0]) if mask is None else mask.sum(1).tolist()
    counted = (batch["labels"] != IGNORED).tolist()
    return [
        (b"".join(each[line][: ends[line]].tobytes() for each in inputs), int(counted[line]))
        for line in range(len(counted))
    ]


@torch.no_grad()
def divergence(
    network: Any, teacher: Any, batch: dict[str, Any], settings: DistillationConfig
) -> list[dict[str, float]]:
    """Return ``kl`` over the classes and ``kl_positions`` (1) of each row, see ``distillation.item_divergences``."""
    student, wanted = (head_outputs(model, batch) for model in (network, teacher))
    return item_divergences(student, wanted, torch.arange(len(student), device=student.device), len(student))
