"""Language modelling: the cross-entropy of the target tokens of a row, given the tokens before them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.evaluation.scoring import logits_at, model_inputs, summed_cross_entropy, target_logits
from smoa_lightning.objectives.distillation import DistillationConfig, DistilledLoss, distilled_loss, item_divergences


def loss(network: Any, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Return the sum over the target tokens of -log p(token) in nats, and the number of these tokens.

    Args:
        network: A causal language model.
        batch: A batch of training rows, see ``data.batches.collate.pad_rows``.
    """
    return summed_cross_entropy(*target_logits(network, batch))


def distilled(network: Any, teacher: Any, batch: dict[str, Any], settings: DistillationConfig) -> DistilledLoss:
    """Return the loss of the next tokens with a teacher; only logits of the positions that count are computed.

    Args:
        network: A causal language model.
        teacher: A causal language model with the same tokenizer.
        batch: A batch of training rows, see ``data.batches.collate.pad_rows``.
        settings: Weight, temperature and positions.
    """
    labels, inputs = batch["labels"][:, 1:], model_inputs(batch)
    counted = labels != IGNORED if settings.positions == "response" else _real(batch)
    rows, columns = counted.nonzero(as_tuple=True)
    places = rows, columns
    with torch.no_grad():
        wanted = logits_at(teacher, inputs, places)
    return distilled_loss(logits_at(network, inputs, places), wanted, labels[counted], settings)


@torch.no_grad()
def divergence(
    network: Any, teacher: Any, batch: dict[str, Any], settings: DistillationConfig
) -> list[dict[str, float]]:
    """Return ``kl`` and ``kl_positions`` of each item, see ``distillation.item_divergences``.

    The text of an item is its prompt with its gold reply, or with the choice of its label.

    Args:
        network: A causal language model.
        teacher: A causal language model with the same tokenizer.
        batch: A batch of scored items, see ``data.batches.collate``.
        settings: The positions that count.
    """
    if "num_choices" in batch:
        chosen = batch["num_choices"].cumsum(0) - batch["num_choices"] + batch["label"]
        batch = {name: batch[name][chosen] for name in ("input_ids", "attention_mask", "labels")}
    labels, inputs = batch["labels"][:, 1:], model_inputs(batch)
    counted = labels != IGNORED if settings.positions == "response" else _real(batch)
    rows, columns = counted.nonzero(as_tuple=True)
    student, wanted = (logits_at(model, inputs, (rows, columns)) for model in (network, teacher))
    return item_divergences(student, wanted, rows, len(labels))


def _real(batch: dict[str, Any]) -> Tensor:
    """Return (rows, length - 1), whether the next token is one of the same row, and no padding."""
    packed = batch.get("position_ids")
    real = batch["attention_mask"][:, 1:] == 1 if packed is None else packed[:, 1:] > 0
    # a process without rows of its own has a row that does not count, see ``collate_part``
    return real if int(batch.get("num_tokens", 1)) else torch.zeros_like(real)
