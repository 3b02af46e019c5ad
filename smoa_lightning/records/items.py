"""Read the item scores of a run from ``items.jsonl``, for paired comparisons and plans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoa_lightning.common.errors import UserError
from smoa_lightning.records.metric_table import METRICS


def read_right(file: Path, metric: str, checksum: str | None = None) -> dict[tuple[str, int], float]:
    """Return (task, row) -> 1 for a right item and 0 for a wrong item.

    The result is empty without a file, for a metric that is not an accuracy, or if an item has no score.

    Args:
        file: The item scores of a run.
        metric: Name of the metric, without the part.
        checksum: SHA-256 of the file, from the record; ``None`` if the record is of an earlier version.

    Raises:
        UserError: The file is damaged or was changed.
    """
    score = METRICS[metric].item if metric in METRICS and METRICS[metric].is_accuracy else None
    if score is None or not file.is_file():
        return {}
    items = read_items(file, checksum)
    with _reading(file):
        scores = {(item.get("task", ""), item["row"]): score(item) for item in items}
    known = {name: value for name, value in scores.items() if value is not None}
    return known if len(known) == len(scores) else {}


def read_items(file: Path, checksum: str | None = None) -> list[dict[str, Any]]:
    """Return the lines of a file of item scores, each with its ``row``.

    Args:
        file: The item scores of a run.
        checksum: SHA-256 of the file, from the record; ``None`` if the record is of an earlier version.

    Raises:
        UserError: The file is damaged or was changed.
    """
    content = file.read_bytes()
    with _reading(file):
        if checksum is not None and hashlib.sha256(content).hexdigest() != checksum:
            raise ValueError("its checksum is wrong")
        items: list[dict[str, Any]] = json.loads(
            b"[" + b",".join(content.splitlines()) + b"]"
        )  # twice as fast as lines
        if not all(isinstance(item["row"], int) for item in items):
            raise ValueError("a row is no whole number")
    return items


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}): restore the file") from error
