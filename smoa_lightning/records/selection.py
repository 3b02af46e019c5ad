"""The protocols that select the checkpoint of a run, and the notes that label all but the first. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Selection = Literal["held_out", "best_epoch_on_report", "trained_rows"]
HELD_OUT: Selection = "held_out"
ON_REPORT: Selection = "best_epoch_on_report"
ON_TRAINED: Selection = "trained_rows"
NOTES: dict[str, str] = {
    ON_REPORT: '"as published"{}: the best epoch on the report rows, so the scores are too good.',
    ON_TRAINED: "{}: capacity. The training rows are scored, so the scores say what a method can store, and nothing "
    "about other rows.",
}


def selection_of(record: Mapping[str, Any]) -> str:
    """Return the protocol of a record; earlier versions had held-out rows only."""
    return str((record.get("data") or {}).get("selection") or HELD_OUT)


def best_checkpoint(record: Mapping[str, Any]) -> str | None:
    """Return which checkpoint a run reports; None if no rows selected it, and for records of earlier versions.

    >>> best_checkpoint({"best": {"step": 2, "selection_score": 0.75, "ties": 1, "steps": 20}})
    'The best checkpoint is reported: step 2 of 20. 1 later one has the same score; the first one counts.'
    """
    best = record.get("best") or {}
    if best.get("selection_score") is None or "ties" not in best:
        return None
    text = f"The best checkpoint is reported: step {best['step']:,} of {best['steps']:,}."
    if ties := best["ties"]:
        text += f" {ties} later {'one has' if ties == 1 else 'ones have'} the same score; the first one counts."
    return text


def capacity(metrics: Mapping[str, float], rows: int) -> dict[str, float]:
    """Return what a run stores of random codes: ``capacity/stored_bits`` of all rows, and for each trained parameter.

    Args:
        metrics: The metrics of a run whose training rows are reported, with the number of its trained parameters.
        rows: Number of trained rows, of which all or some are scored.

    >>> capacity({"report/stored_bits": 20.0, "parameters/trainable": 1000}, 250)
    {'capacity/stored_bits': 5000.0, 'capacity/bits_per_parameter': 5.0}
    """
    bits, trained = metrics.get("report/stored_bits"), metrics.get("parameters/trainable")
    if bits is None or not trained:
        return {}
    total = bits * rows
    return {"capacity/stored_bits": total, "capacity/bits_per_parameter": total / trained}


def selection_note(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the sentences about runs that select or report on rows of their training or report; None without them.

    >>> selection_note([{"data": {"selection": "held_out"}}, {"data": {}}])
    >>> selection_note([{"data": {"selection": "best_epoch_on_report"}}])
    'Selection best_epoch_on_report, "as published": the best epoch on the report rows, so the scores are too good.'
    """
    kinds = [selection_of(record) for record in records]
    notes = []
    for kind, text in NOTES.items():
        if count := kinds.count(kind):
            which = "" if count == len(kinds) else f" in {count} of {len(kinds)} runs"
            between = "" if text.startswith("{}") else ", "
            notes.append(f"Selection {kind}{between}{text.format(which)}")
    return " ".join(notes) or None
