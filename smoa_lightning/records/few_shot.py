"""Whether the solved rows of a few-shot prompt are chosen by the seed of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def prompts_follow_seed(settings: Mapping[str, Any]) -> bool:
    """Whether runs that differ only in ``seed_everything`` have different few-shot prompts, also for the base model.

    Args:
        settings: Composed settings of a cell, before ``data.seed`` is set to ``seed_everything``.

    >>> prompts_follow_seed({"data": {"num_fewshot": 2}}), prompts_follow_seed({"data": {"num_fewshot": 2, "seed": 0}})
    (True, False)
    """
    data = settings.get("data") or {}
    return bool(data.get("num_fewshot")) and data.get("seed") is None
