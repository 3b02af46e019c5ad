"""Checks of the ranges of data settings, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smoa_lightning.backbones.hub import SOURCES
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.combinations import check_combinations
from smoa_lightning.configuration.ranges import check_value

NUMBERS = (
    *("batch_size", "eval_batch_size", "eval_max_tokens", "limit_train_rows", "limit_report_rows", "bucket_batches"),
    *("pad_multiple", "max_new_tokens", "num_beams", "selection_rows", "num_workers", "num_fewshot", "max_length"),
    *("seed", "first_label"),
)


def check_ranges(source: str, numbers: Mapping[str, Any]) -> None:
    """Refuse an unknown source and numbers out of their range.

    Args:
        source: ``data.source``.
        numbers: Settings by their names, with those of ``NUMBERS`` among them.

    Raises:
        UserError: names the setting, its value and the bound.
    """
    if source not in SOURCES:
        raise UserError(f"data.source: unknown source {source!r}; the sources are {', '.join(SOURCES)}")
    for name in NUMBERS:
        check_value(f"data.{name}", numbers[name])
    check_combinations({f"data.{name}": numbers[name] for name in NUMBERS}.get)
