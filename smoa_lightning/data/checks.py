"""Settings of the data that cannot be, refused before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoa_lightning.backbones.hub import SOURCES
from smoa_lightning.common.errors import UserError

if TYPE_CHECKING:
    from smoa_lightning.data.datamodule import TaskDataModule

LEAST = {
    **dict.fromkeys(("batch_size", "eval_batch_size", "eval_max_tokens", "limit_train_rows", "limit_report_rows"), 1),
    **dict.fromkeys(("bucket_batches", "pad_multiple", "max_new_tokens", "num_beams"), 1),
    **dict.fromkeys(("stream_buffer_rows", "stream_epoch_batches"), 1),
    **dict.fromkeys(("selection_rows", "num_workers", "num_fewshot"), 0),
}


def check_ranges(data: TaskDataModule) -> None:
    """Refuse an unknown source and numbers out of their range.

    Raises:
        UserError: names setting, value and bound.
    """
    if data.requested_source not in SOURCES:
        raise UserError(f"data.source: unknown source {data.requested_source!r}; it is one of {', '.join(SOURCES)}")
    for name, bound in LEAST.items():
        value = getattr(data, name)
        if value is not None and value < bound:
            raise UserError(f"data.{name} is {value}, but must be at least {bound}.")
    if data.encoding.max_length < 2:
        raise UserError(f"data.max_length is {data.encoding.max_length}, but must be at least 2.")


def check_streaming(data: TaskDataModule) -> None:
    """Refuse settings that need to know all training rows.

    Raises:
        UserError: names the setting.
    """
    several = len(data.trained) > 1
    needs = {"mixture": several, "limit_train_rows": data.limit_train_rows, "num_fewshot": data.num_fewshot}
    if wrong := next((name for name, is_set in needs.items() if is_set), None):
        raise UserError(f"data.{wrong} needs all training rows at hand, which data.streaming does not have.")
    if data.num_workers:
        raise UserError("data.num_workers: streamed rows are read and encoded in the main process; set it to 0.")
