"""The published rules by which replies of a run are scored, and the note that labels such scores. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def rules_of(record: Mapping[str, Any]) -> str | None:
    """Return the published rules of a record; ``None`` for those of this package."""
    data = record.get("data") or {}
    each = [data, *(data.get("tasks") or {}).values()]
    return next((facts["rules"] for facts in each if facts.get("rules")), None)


def rules_note(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the sentence about runs whose replies are scored by published rules; None without such runs.

    >>> rules_note([{"data": {}}])
    >>> rules_note([{"data": {"rules": "llm_adapters"}}])
    'Published rules llm_adapters: replies, answers and beams are those of the published code, not of this package.'
    """
    kinds = [rules_of(record) for record in records]
    named = [kind for kind in kinds if kind is not None]
    if not named:
        return None
    which = "" if len(named) == len(kinds) else f" in {len(named)} of {len(kinds)} runs"
    return (
        f"Published rules {named[0]}{which}: replies, answers and beams are those of the published code, not of this "
        "package."
    )
