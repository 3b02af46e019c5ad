"""Log-likelihoods of responses and choices: pure functions of tensors.

Rows are right-padded sequences prompt + response. ``labels`` is equal to ``input_ids`` at the targets and -100
elsewhere. The token at position t is predicted by the logits at t - 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoa_lightning.data.encoding.items import IGNORED

# Logits in one piece of ``log_probabilities``. On a CPU this is 1 MB of float32, which fits its second-level cache.
PIECE = {"cpu": 2**18}
LARGE_PIECE = 2**25  # on other devices, since each piece needs a kernel launch there


class ChoiceScores(NamedTuple):
    """Scores of the choices of each item, padded with -inf if an item has fewer choices.

    log_likelihood: (items, choices) summed log-likelihood of each choice given its prompt.
    per_byte: the same divided by the choice's length in UTF-8 bytes.
    per_token: the same divided by its number of tokens.
    """

    log_likelihood: Tensor
    per_byte: Tensor
    per_token: Tensor


def target_logits(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Run the model and return the logits of the targets only.

    The logits are the largest activation of a small model, and most positions of a row are not targets. So a hook on
    the output embedding selects the hidden states of the targets before it. Later steps of an architecture (scaling or
    capping of logits) still happen. If the model calls no such layer, the logits of all positions are computed, and
    those of the targets selected.

    Args:
        model: A causal language model.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each (rows, length); packed rows have ``position_ids``
            instead of a mask.

    Returns:
        ``logits`` (targets, vocabulary) that predict the targets, in the order of rows and columns; and ``labels``
        (rows, length - 1), -100 at positions without a target.
    """
    labels = batch["labels"][:, 1:]
    return logits_at(model, model_inputs(batch), (labels != IGNORED).nonzero(as_tuple=True)), labels


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a causal language model for a batch of rows, which may be packed."""
    if "position_ids" in batch:  # packed rows: without a cache, the model separates them by their positions
        return {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def logits_at(model: Any, inputs: dict[str, Any], places: tuple[Tensor, Tensor]) -> Tensor:
    """Run the model and return its logits (places, vocabulary) at some positions; the others are not computed.

    Args:
        model: A causal language model.
        inputs: Arguments of its forward, with ``input_ids`` (rows, length).
        places: Row and column of each position.
    """
    length = inputs["input_ids"].shape[1]
    with _picking(model, places, length) as picked:
        logits: Tensor = model(**inputs).logits
    return logits[0] if picked else _pick(logits, places, length)


def _pick(values: Tensor, places: tuple[Tensor, Tensor], length: int) -> Tensor:
    """Select (targets, size) from (rows, positions, size).

    Positions count from the right, since prompt methods put virtual tokens before the row.
    """
    return values[:, -length:][places]


@contextlib.contextmanager
def _picking(model: Any, places: tuple[Tensor, Tensor], length: int) -> Iterator[list[bool]]:
    """Pass only the hidden states of the targets to the output embedding; the list then has an entry."""
    picked: list[bool] = []
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None

    def pick(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden = arguments[0] if arguments else None
        if not isinstance(hidden, Tensor) or hidden.ndim != 3 or hidden.shape[1] < length:
            return None
        picked.append(True)
        return (_pick(hidden, places, length)[None], *arguments[1:])

    handle = head.register_forward_pre_hook(pick) if isinstance(head, nn.Module) else None
    try:
        yield picked
    finally:
        if handle is not None:
            handle.remove()


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Return the sum over targets of -log p(label) in float32, and the number of targets.

    Args:
        logits: (targets, vocabulary), see ``target_logits``.
        labels: (rows, columns), -100 at positions without a target.
    """
    return F.cross_entropy(logits.float(), labels[labels != IGNORED], reduction="sum"), len(logits)


def row_log_likelihoods(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed log-likelihood of each row's targets and their number, both (rows,); float32 log-softmax.

    Args:
        logits: (targets, vocabulary), see ``target_logits``.
        labels: (rows, columns), -100 at positions without a target.
    """
    chosen = labels != IGNORED
    token = log_probabilities(logits, torch.arange(len(logits), device=logits.device), labels[chosen])
    rows = chosen.nonzero(as_tuple=True)[0]
    total = torch.zeros(labels.shape[0], dtype=torch.float32, device=labels.device).index_add_(0, rows, token)
    return total, chosen.sum(dim=1)


@torch.no_grad()
def log_probabilities(logits: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """Return logits[places[i], tokens[i]] - logsumexp(logits[places[i]]) = log p(tokens[i]), (targets,) in float32.

    It has no gradient.

    Args:
        logits: (places, vocabulary).
        places: (targets,) the row of the logits that predicts each target.
        tokens: (targets,) token ids.
    """
    return logits[places, tokens].float() - _normalisers(logits)[places]


def _normalisers(logits: Tensor) -> Tensor:
    """Return logsumexp(logits) of each row, (places,) in float32.

    A float32 copy of all logits would double the memory of scoring. So pieces of them go through one buffer, which
    stays in the cache of a CPU. ``torch.logsumexp`` allocates several tensors for each piece, and takes four times as
    long.
    """
    rows = max(1, PIECE.get(logits.device.type, LARGE_PIECE) // logits.shape[-1])
    buffer = torch.empty(min(rows, len(logits)), logits.shape[-1], dtype=torch.float32, device=logits.device)
    found = []
    for piece in logits.split(rows):
        values = buffer[: len(piece)].copy_(piece)
        largest = values.amax(dim=-1, keepdim=True)
        largest.masked_fill_(largest.isinf(), 0)  # inf - inf is NaN
        found.append(values.sub_(largest).exp_().sum(dim=-1).log_().add_(largest[:, 0]))
    return torch.cat(found)


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
