"""What a reader of scores has to know first: generated rows, the selection of checkpoints, and published rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from smoa_lightning.records.embedded_note import embedded_note
from smoa_lightning.records.published_rules import rules_note
from smoa_lightning.records.selection import ON_TRAINED, selection_note, selection_of

NEW_ROWS = "new rows of the same kind"


def score_notes(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the sentences that label the scores of runs; none for real, held-out rows."""
    known = list(records)
    return [note for note in (embedded_note(known), selection_note(known), rules_note(known)) if note]


def about_rows(text: str, records: Iterable[Mapping[str, Any]]) -> str:
    """Return a sentence about new rows; for runs that report their training rows it is about these.

    >>> about_rows(f"It holds for {NEW_ROWS}.", [{"data": {"selection": "trained_rows"}}])
    'It holds for the rows that were trained on.'
    """
    trained = any(selection_of(record) == ON_TRAINED for record in records)
    return text.replace(NEW_ROWS, "the rows that were trained on") if trained else text
