"""The learning rate by optimizer step: linear warm-up, then linear or cosine decay, or a constant rate."""

from __future__ import annotations

import math
from typing import Literal

Decay = Literal["linear", "cosine", "constant"]


def warmup_steps(warmup: float, total: int) -> int:
    """Return the number of warm-up steps; below 1, ``warmup`` is a share of the ``total`` steps.

    >>> warmup_steps(100, 1000), warmup_steps(0.06, 1000), warmup_steps(0, 1000)
    (100, 60, 0)
    """
    return int(warmup) if warmup >= 1 else math.ceil(warmup * total)


def warmup_decay(step: int, warmup: float, total: int, decay: Decay = "linear") -> float:
    """Return the factor on the base learning rate at ``step`` (from 0).

    With w warm-up steps and n steps in all: (step + 1) / (w + 1) during warm-up, then
    (n - step) / (n - w) with linear decay, (1 + cos(pi (step - w) / (n - w))) / 2 with cosine decay,
    or 1 without decay. No step has the rate zero.

    >>> [round(warmup_decay(s, warmup=2, total=6), 2) for s in range(6)]
    [0.33, 0.67, 1.0, 0.75, 0.5, 0.25]
    >>> [round(warmup_decay(s, warmup=2, total=6, decay="cosine"), 2) for s in range(6)]
    [0.33, 0.67, 1.0, 0.85, 0.5, 0.15]
    """
    first = warmup_steps(warmup, total)
    if step < first:
        return (step + 1) / (first + 1)
    if decay == "constant":
        return 1.0
    left = max(0.0, (total - step) / max(1, total - first))
    return left if decay == "linear" else (1 - math.cos(math.pi * left)) / 2
