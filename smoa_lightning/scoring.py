"""Log-likelihoods of responses and choices: pure functions of tensors.

Rows are right-padded sequences prompt + response; ``labels`` repeats ``input_ids`` at the tokens that count and holds
-100 elsewhere. The token at position t is predicted by the logits at t - 1.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = -100


class ChoiceScores(NamedTuple):
    """Scores of the choices of each item, padded with -inf where an item has fewer choices.

    log_likelihood: (items, choices) summed log-likelihood of each choice given its prompt.
    per_byte: the same divided by the choice's length in UTF-8 bytes.
    per_token: the same divided by its number of tokens.
    """

    log_likelihood: Tensor
    per_byte: Tensor
    per_token: Tensor


def target_logits(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Run the model and return logits and labels of the positions where some row of the batch has a target.

    The vocabulary projection is the largest activation of a small model, so columns that only hold prompts are not
    projected where the architecture takes ``logits_to_keep``.

    Args:
        model: A causal language model.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each (rows, length); of packed rows ``position_ids``
            instead of a mask.

    Returns:
        ``logits`` (rows, columns, vocabulary) and the ``labels`` (rows, columns) that they predict.
    """
    labels = batch["labels"][:, 1:]
    first = int((labels != IGNORE).any(dim=0).to(torch.uint8).argmax())  # the first column with a target
    # Positions, not a number: indexing copies the hidden states, while a slice of them would be a strided view, for
    # which the projection falls back to one product per row with a copy of its weight for each.
    keep = torch.arange(first, labels.shape[1], device=labels.device)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if "position_ids" in batch:  # packed rows, which the model parts by their positions, if it keeps no cache
        inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
    if _takes_logits_to_keep(model):
        logits = model(**inputs, logits_to_keep=keep).logits
    else:
        # counted from the right: prompt methods put virtual tokens before the row
        logits = model(**inputs).logits[:, -batch["input_ids"].shape[1] :][:, keep]
    return logits, labels[:, first:]


def _takes_logits_to_keep(model: Any) -> bool:
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # positions are shifted by the virtual tokens
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over targets of -log p(label) and the number of targets, in float32.

    Args:
        logits: (rows, columns, vocabulary).
        labels: (rows, columns), -100 where nothing is predicted.
    """
    chosen = labels != IGNORE
    return F.cross_entropy(logits[chosen].float(), labels[chosen], reduction="sum"), chosen.sum()


def row_log_likelihoods(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed log-likelihood of each row's targets and their number, both (rows,); float32 log-softmax."""
    chosen = labels != IGNORE
    token = -F.cross_entropy(logits[chosen].float(), labels[chosen], reduction="none")
    rows = chosen.nonzero(as_tuple=True)[0]
    total = torch.zeros(labels.shape[0], dtype=torch.float32, device=labels.device).index_add_(0, rows, token)
    return total, chosen.sum(dim=1)


def choice_scores(log_likelihood: Tensor, tokens: Tensor, num_bytes: Tensor, num_choices: Tensor) -> ChoiceScores:
    """Group rows into items and normalise.

    Args:
        log_likelihood: (rows,) summed log-likelihood of each choice; the choices of an item are consecutive.
        tokens: (rows,) number of tokens of each choice.
        num_bytes: (rows,) number of UTF-8 bytes of each choice's text.
        num_choices: (items,) how many rows belong to each item.

    >>> s = choice_scores(torch.tensor([-4., -6.]), torch.tensor([2, 4]), torch.tensor([8, 24]), torch.tensor([2]))
    >>> s.log_likelihood.tolist(), s.per_byte.tolist(), s.per_token.tolist()
    ([[-4.0, -6.0]], [[-0.5, -0.25]], [[-2.0, -1.5]])
    """

    def by_item(values: Tensor) -> Tensor:
        items = torch.split(values, num_choices.tolist())
        return nn.utils.rnn.pad_sequence(list(items), batch_first=True, padding_value=float("-inf"))

    return ChoiceScores(by_item(log_likelihood), by_item(log_likelihood / num_bytes), by_item(log_likelihood / tokens))
