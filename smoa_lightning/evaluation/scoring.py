"""Log-likelihoods of responses and choices: pure functions of tensors.

Rows are right-padded sequences prompt + response; ``labels`` repeats ``input_ids`` at the tokens that count and holds
-100 elsewhere. The token at position t is predicted by the logits at t - 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoa_lightning.data.encoding.items import IGNORED

# Logits whose normaliser is made at a time. On a CPU 1 MB of float32: what is written stays in its second-level cache.
PIECE = {"cpu": 2**18}
LARGE_PIECE = 2**25  # on other devices, where each piece is a kernel launch


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
    """Run the model and return the logits of the targets alone.

    The vocabulary projection is the largest activation of a small model, and most positions of a prompt with its reply
    are no targets. So the hidden states of the targets are picked in front of the output embedding, by a hook on it:
    what an architecture does to logits afterwards (scaling, capping) is kept. Where no such layer is called, the logits
    of all positions are made and picked from.

    Args:
        model: A causal language model.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each (rows, length); of packed rows ``position_ids``
            instead of a mask.

    Returns:
        ``logits`` (targets, vocabulary), those that predict the targets in the order of rows and columns, and the
        ``labels`` (rows, length - 1), -100 where nothing is predicted.
    """
    labels = batch["labels"][:, 1:]
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if "position_ids" in batch:  # packed rows, which the model parts by their positions, if it keeps no cache
        inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
    return logits_at(model, inputs, (labels != IGNORED).nonzero(as_tuple=True)), labels


def logits_at(model: Any, inputs: dict[str, Any], places: tuple[Tensor, Tensor]) -> Tensor:
    """Run the model and return its logits (places, vocabulary) at some positions, the others not being made.

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
    """Return (targets, size) of (rows, positions, size); positions count from the right, since prompt methods put
    virtual tokens before the row."""
    return values[:, -length:][places]


@contextlib.contextmanager
def _picking(model: Any, places: tuple[Tensor, Tensor], length: int) -> Iterator[list[bool]]:
    """Let the output embedding see the targets' hidden states only; the list is filled when it has done so."""
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


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over targets of -log p(label) and the number of targets, in float32.

    Args:
        logits: (targets, vocabulary), see ``target_logits``.
        labels: (rows, columns), -100 where nothing is predicted.
    """
    chosen = labels != IGNORED
    return F.cross_entropy(logits.float(), labels[chosen], reduction="sum"), chosen.sum()


def row_log_likelihoods(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed log-likelihood of each row's targets and their number, both (rows,); float32 log-softmax.

    Args:
        logits: (targets, vocabulary), see ``target_logits``.
        labels: (rows, columns), -100 where nothing is predicted.
    """
    chosen = labels != IGNORED
    token = log_probabilities(logits, torch.arange(len(logits), device=logits.device), labels[chosen])
    rows = chosen.nonzero(as_tuple=True)[0]
    total = torch.zeros(labels.shape[0], dtype=torch.float32, device=labels.device).index_add_(0, rows, token)
    return total, chosen.sum(dim=1)


def log_probabilities(logits: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """Return logits[places[i], tokens[i]] - logsumexp(logits[places[i]]) = log p(tokens[i]), (targets,) in float32.

    The normaliser is made in pieces of the logits: a float32 copy of all of them would be as large as everything else
    that scoring holds, and on a CPU writing and reading it costs more than its arithmetic.

    Args:
        logits: (places, vocabulary).
        places: (targets,) which row of the logits predicts each target.
        tokens: (targets,) token ids.
    """
    rows = max(1, PIECE.get(logits.device.type, LARGE_PIECE) // logits.shape[-1])
    normaliser = torch.cat([piece.float().logsumexp(dim=-1) for piece in logits.split(rows)])
    return logits[places, tokens].float() - normaliser[places]


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
