"""Language modelling: the cross-entropy of the target tokens of a row, given the tokens before them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from smoa_lightning.evaluation.scoring import summed_cross_entropy, target_logits


def loss(network: Any, batch: dict[str, Any]) -> tuple[Tensor, int]:
    """Return the sum over the target tokens of -log p(token) in nats, and the number of these tokens.

    Args:
        network: A causal language model.
        batch: A batch of training rows, see ``data.batches.collate.pad_rows``.
    """
    return summed_cross_entropy(*target_logits(network, batch))
