"""Sampled replies that depend on the seed and the number of a row, not on the other rows of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: The logits are divided by it; above 0.
        top_p: Only the most likely tokens with this joint probability are drawn, as in transformers; above 0, up to 1.
        seed: Seed of the draws.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


class SeededDraws(LogitsProcessor):
    r"""Replace the logits of each row by a token that is drawn from them, so that a greedy search returns this token.

    The token of row n at step t is :math:`\min\{v : F(v) > u_{nt}\}`. :math:`F` is the cumulative distribution over
    the vocabulary after temperature and top-p. The uniform numbers :math:`u_{n1}, u_{n2}, \dots` are a stream of their
    own for each pair (seed, n), so a row has the same reply in every batch.

    Args:
        sampling: Temperature, top-p and seed.
        rows: The number of each row of the batch.
    """

    def __init__(self, sampling: Sampling, rows: Sequence[int]) -> None:
        self._warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(sampling.temperature))]
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(float(sampling.top_p)))
        self._streams = [np.random.default_rng([sampling.seed, row]) for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with one finite value in each row, (rows, vocabulary)."""
        wide = torch.float32 if scores.device.type == "mps" else torch.float64  # the only device without float64
        scores = scores.to(wide)
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        cumulative = scores.softmax(-1).cumsum(-1)
        uniform = torch.tensor([[stream.random()] for stream in self._streams], dtype=wide, device=scores.device)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        # rounding may give the total itself; the last token with a probability is the answer then
        last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
        return torch.full_like(scores, -torch.inf).scatter(1, torch.minimum(drawn, last), 0.0)
