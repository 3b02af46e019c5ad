"""The loader of training batches: over rows in memory, packed or not, or over a stream."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from smoa_lightning.data.batches.collate import pad_rows
from smoa_lightning.data.batches.loaders import BucketOrder, ResumableLoader
from smoa_lightning.data.batches.packing import collate_packed, pack_rows
from smoa_lightning.data.batches.stream import StreamLoader, StreamOrder
from smoa_lightning.data.task_stream import open_stream, stream_identity

if TYPE_CHECKING:
    from smoa_lightning.data.datamodule import TaskDataModule


def training_loader(data: TaskDataModule, pad_id: int, place: tuple[int, int]) -> ResumableLoader:
    """Return a fresh loader for the settings of the data.

    Args:
        data: The data; its training rows are encoded here, unless they are streamed.
        pad_id: Token to pad with.
        place: This process, and how many there are.
    """
    collate: Any = collate_packed if data.packing else pad_rows
    collate = functools.partial(collate, pad_id=pad_id, pad_multiple=data.pad_multiple)
    rank, world_size = place
    if data.streaming:
        (rows,) = data.trained.values()
        stream = open_stream(rows, data.stream_buffer_rows)
        order = StreamOrder(
            source=stream_identity(rows, stream),
            batch_size=data.batch_size,
            seed=data.seed,
            buffer_rows=data.stream_buffer_rows,
            bucket=data.bucket_batches,
            pack_length=data.encoding.max_length if data.packing else None,
            rank=rank,
            world_size=world_size,
            epoch_batches=data.stream_epoch_batches,
        )
        return StreamLoader(stream, order, collate)
    encoded: list[Any] = data.encoded("train")
    if data.packing:
        encoded = list(pack_rows(encoded, data.encoding.max_length, data.seed))
    lengths = tuple(len(row) for row in encoded)
    bucketed = BucketOrder(lengths, data.batch_size, data.seed, data.bucket_batches, rank, world_size)
    return ResumableLoader(encoded, bucketed, collate, data.num_workers, data.pin_memory)
