"""The note that labels scores of generated rows and of the small model of this package. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EMBEDDED = "embedded"


def embedded_note(record: Mapping[str, Any]) -> str | None:
    """Return the sentence about the embedded parts of a run; None without them.

    >>> embedded_note({"data": {"source": "embedded", "task": "piqa"}, "backbone": {"source": "hub"}})
    'The rows of piqa are generated rows of this package: the scores say nothing about the real piqa.'
    """
    data, backbone = record.get("data") or {}, record.get("backbone") or {}
    rows, model = data.get("source") == EMBEDDED, backbone.get("source") == EMBEDDED
    task = data.get("task")
    if rows:
        base = ", and the base model is its small one" if model else ""
        about = f"the scores say nothing about the real {task}"
        return f"The rows of {task} are generated rows of this package{base}: {about}."
    return "The base model is the small one of this package: the scores say nothing about others." if model else None
