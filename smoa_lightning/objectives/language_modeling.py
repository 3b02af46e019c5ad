"""Language modelling: the cross-entropy of the target tokens of a row, given the tokens before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.evaluation.scoring import logits_at, model_inputs, summed_cross_entropy, target_logits
from smoa_lightning.objectives.distillation import DistillationConfig, DistilledLoss, distilled_loss, item_divergences
from smoa_lightning.objectives.top_distributions import TOP


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
        teacher: A causal language model with the same tokenizer; None if the batch has its distributions.
        batch: A batch of training rows, see ``data.batches.collate.pad_rows``.
        settings: Weight, temperature and positions.
    """
    with torch.no_grad():
        wanted = batch[TOP] if teacher is None else counted_logits(teacher, batch, settings)
    labels = batch["labels"][:, 1:][_counted(batch, settings)]
    return distilled_loss(counted_logits(network, batch, settings), wanted, labels, settings)


def counted_logits(network: Any, batch: dict[str, Any], settings: DistillationConfig) -> Tensor:
    """Return the logits (positions, vocabulary) of the positions that count, in the order of rows and columns."""
    rows, columns = _counted(batch, settings).nonzero(as_tuple=True)
    return logits_at(network, model_inputs(batch), (rows, columns))


def row_contents(batch: dict[str, Any], settings: DistillationConfig) -> list[tuple[bytes, int]]:
    """Return what decides the logits of each row, and its number of positions that count, in their order.

    A row that is packed has the same content as alone: its tokens, and which of them count.
    """
    counted, ids = _counted(batch, settings).cpu().numpy(), batch["input_ids"].cpu().numpy()
    packed = batch.get("position_ids")
    ends = [[int(n)] for n in batch["attention_mask"].sum(1)] if packed is None else None
    contents = []
    for line in range(len(ids)):
        starts = [0] if packed is None else np.flatnonzero(packed[line].cpu().numpy() == 0).tolist()
        for start, end in zip(starts, ends[line] if ends else [*starts[1:], ids.shape[1]], strict=True):
            chosen = counted[line, start : end - 1]
            contents.append((ids[line, start:end].tobytes() + chosen.tobytes(), int(chosen.sum())))
    return contents


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
    student, wanted = (counted_logits(model, batch, settings) for model in (network, teacher))
    rows = _counted(batch, settings).nonzero(as_tuple=True)[0]
    return item_divergences(student, wanted, rows, len(batch["labels"]))


def _counted(batch: dict[str, Any], settings: DistillationConfig) -> Tensor:
    """Return (rows, length - 1), whether the next token counts."""
    return batch["labels"][:, 1:] != IGNORED if settings.positions == "response" else _real(batch)


def _real(batch: dict[str, Any]) -> Tensor:
    """Return (rows, length - 1), whether the next token is one of the same row, and no padding."""
    packed = batch.get("position_ids")
    real = batch["attention_mask"][:, 1:] == 1 if packed is None else packed[:, 1:] > 0
    # a process without rows of its own has a row that does not count, see ``collate_part``
    return real if int(batch.get("num_tokens", 1)) else torch.zeros_like(real)
