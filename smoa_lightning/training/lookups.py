"""Small look-ups of a run: a callback of its trainer, metrics as numbers, the time."""

from __future__ import annotations

import datetime
from typing import Any, TypeVar

import lightning as L

T = TypeVar("T")


def callback_of(trainer: L.Trainer, kind: type[T]) -> T:
    """Return the first callback of a class."""
    return next(c for c in trainer.callbacks if isinstance(c, kind))  # type: ignore[attr-defined]


def floats(metrics: Any, prefix: str) -> dict[str, float]:
    """Return the metrics whose names begin with a prefix, as numbers."""
    return {name: float(value) for name, value in metrics.items() if name.startswith(prefix)}


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
