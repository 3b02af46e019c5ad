"""The note that labels scores of generated rows and of the small model of this package. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

EMBEDDED = "embedded"
REAL_ROWS = ("digits", "phone_book")  # those of a library, and a task whose rows are always generated


def embedded_note(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the sentence about the embedded parts of runs; None without them.

    >>> embedded_note([{"data": {"source": "embedded", "task": "piqa"}, "backbone": {"source": "hub"}}])
    'The rows of piqa are generated rows of this package: the scores say nothing about the real piqa.'
    >>> embedded_note([{"data": {"source": "embedded", "task": "digits"}, "backbone": {"source": "embedded"}}])
    'The base model is the small one of this package: the scores say nothing about others.'
    """
    known = list(records)
    tasks = dict.fromkeys(task for record in known if (task := _generated(record)))
    models = any((record.get("backbone") or {}).get("source") == EMBEDDED for record in known)
    if tasks:
        names = ", ".join(tasks)
        base = ", and the base model is its small one" if models else ""
        about = f"the scores say nothing about the real {names}"
        return f"The rows of {names} are generated rows of this package{base}: {about}."
    return "The base model is the small one of this package: the scores say nothing about others." if models else None


def _generated(record: Mapping[str, Any]) -> str | None:
    """Return the task of a run on generated rows; None for real rows."""
    data = record.get("data") or {}
    return data.get("task") if data.get("source") == EMBEDDED and data.get("task") not in REAL_ROWS else None
