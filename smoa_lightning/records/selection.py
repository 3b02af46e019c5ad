"""The two protocols that select the checkpoint of a run, and the note that labels the second one. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Selection = Literal["held_out", "best_epoch_on_report"]
HELD_OUT: Selection = "held_out"
ON_REPORT: Selection = "best_epoch_on_report"


def selection_of(record: Mapping[str, Any]) -> str:
    """Return the protocol of a record; earlier versions had held-out rows only."""
    return str((record.get("data") or {}).get("selection") or HELD_OUT)


def selection_note(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the sentence about runs whose checkpoint was selected on the rows of the report; None without such runs.

    >>> selection_note([{"data": {"selection": "held_out"}}, {"data": {}}])
    >>> selection_note([{"data": {"selection": "best_epoch_on_report"}}])
    'Selection best_epoch_on_report, "as published": the best epoch on the report rows, so the scores are too good.'
    """
    kinds = [selection_of(record) for record in records]
    count = kinds.count(ON_REPORT)
    if not count:
        return None
    which = "" if count == len(kinds) else f" in {count} of {len(kinds)} runs"
    return (
        f'Selection {ON_REPORT}, "as published"{which}: the best epoch on the report rows, so the scores are too good.'
    )
