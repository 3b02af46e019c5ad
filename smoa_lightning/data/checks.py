"""Checks of the ranges of data settings, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smoa_lightning.backbones.hub import SOURCES
from smoa_lightning.common.errors import UserError

LEAST = {
    **dict.fromkeys(("batch_size", "eval_batch_size", "eval_max_tokens", "limit_train_rows", "limit_report_rows"), 1),
    **dict.fromkeys(("bucket_batches", "pad_multiple", "max_new_tokens", "num_beams"), 1),
    **dict.fromkeys(("selection_rows", "num_workers", "num_fewshot"), 0),
    "max_length": 2,
}


def check_ranges(source: str, numbers: Mapping[str, Any]) -> None:
    """Refuse an unknown source and numbers out of their range.

    Args:
        source: ``data.source``.
        numbers: Settings by their names, with those of ``LEAST`` among them.

    Raises:
        UserError: names the setting, its value and the bound.
    """
    if source not in SOURCES:
        raise UserError(f"data.source: unknown source {source!r}; the sources are {', '.join(SOURCES)}")
    for name, bound in LEAST.items():
        value = numbers[name]
        if value is not None and value < bound:
            raise UserError(f"data.{name} is {value}, but must be at least {bound}.")
