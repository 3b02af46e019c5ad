"""Distributions of which the largest probabilities are known, and the mass of the rest.

For p over a vocabulary V, S are its k most probable tokens, and p_R = 1 - sum of p_v over S is the mass of the rest.
The KL to a distribution q, with q_R the mass that q has outside of S, takes the rest as one token:

    KL_k = sum over S of p_v log(p_v / q_v) + p_R log(p_R / q_R)

It is at most the KL over V, since tokens are only joined, and equal to it for k = |V|. Only how p divides p_R over the
rest is not known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TOP = "top_distributions"  # key of the distributions of a teacher in a batch


class TopDistributions(NamedTuple):
    """The largest probabilities at n positions.

    tokens: (n, k) int32, the tokens of S from the most probable one.
    log_p: (n, k) float32, log p_v of these tokens in nats.
    log_rest: (n,) float32, log p_R; -inf if S is the whole vocabulary.
    columns: |V|; logits of a student may have more columns, which do not count.
    """

    tokens: Tensor
    log_p: Tensor
    log_rest: Tensor
    columns: int

    @property
    def mass(self) -> Tensor:
        """1 - p_R of each position, (n,) in float64."""
        return -torch.expm1(self.log_rest.double())

    def split(self, rows: int) -> list[TopDistributions]:
        """Return pieces of at most ``rows`` positions."""
        tokens, log_p, log_rest = (part.split(rows) for part in (self.tokens, self.log_p, self.log_rest))
        return [TopDistributions(*each, self.columns) for each in zip(tokens, log_p, log_rest, strict=True)]


def joined(parts: list[TopDistributions]) -> TopDistributions:
    """Return the positions of all parts, one part after the other; there is at least one part."""
    tokens, log_p, log_rest = (torch.cat([part[i] for part in parts]) for i in range(3))  # type: ignore[misc]
    return TopDistributions(tokens, log_p, log_rest, parts[0].columns)


def top_distributions(logits: Tensor, columns: int, top: int, temperature: float, piece: int) -> TopDistributions:
    """Return the largest probabilities of p = softmax(logits / T).

    Args:
        logits: (n, vocabulary); the columns from ``columns`` on do not count.
        columns: |V|.
        top: k; a larger number than |V| means |V|.
        temperature: T.
        piece: Logits that are in float32 at a time.
    """
    rows, kept = max(1, piece // max(columns, 1)), min(top, columns)
    found = []
    for part in logits.split(rows):
        log_p = F.log_softmax(part[:, :columns].float() / temperature, dim=-1)
        values, tokens = log_p.topk(kept, dim=-1)
        rest = log_p.scatter_(-1, tokens, -math.inf).logsumexp(-1)
        found.append(TopDistributions(tokens.int(), values, rest, columns))
    return joined(found)


def top_divergences(student: Tensor, teacher: TopDistributions, temperature: float) -> Tensor:
    """Return KL_k(p || q) of each position in nats, (n,) in float32, with q = softmax(student / T).

    Args:
        student: (n, vocabulary) logits, with a gradient.
        teacher: The distributions p, which were made with the same T.
        temperature: T.
    """
    log_q = F.log_softmax(student[:, : teacher.columns].float() / temperature, dim=-1)
    tokens = teacher.tokens.long()
    known = F.kl_div(log_q.gather(-1, tokens), teacher.log_p, reduction="none", log_target=True).sum(-1)
    if tokens.shape[-1] == teacher.columns:
        return known
    rest = log_q.scatter(-1, tokens, -math.inf).logsumexp(-1)
    joint = F.kl_div(rest, teacher.log_rest, reduction="none", log_target=True)
    return known + torch.where(teacher.log_rest.isinf(), 0.0, joint)  # 0 log 0 = 0
