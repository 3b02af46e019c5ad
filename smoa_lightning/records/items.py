"""The scores of the items of a run, from ``items.jsonl``: for paired comparisons and for plans."""

from __future__ import annotations

import json
from pathlib import Path

from smoa_lightning.records.metric_table import METRICS


def read_right(file: Path, metric: str) -> dict[tuple[str, int], float]:
    """Return task and row -> 1 or 0 for right and wrong; nothing without a file, or for a metric that is no accuracy.

    Raises:
        ValueError: The file is damaged.
    """
    score = METRICS[metric].item if metric in METRICS and METRICS[metric].is_accuracy else None
    if score is None or not file.is_file():
        return {}
    items = json.loads(f"[{','.join(file.read_text(encoding='utf-8').splitlines())}]")  # one call is twice as fast
    found = {(item.get("task", ""), item["row"]): score(item) for item in items}
    known = {name: value for name, value in found.items() if value is not None}
    return known if len(known) == len(found) else {}
