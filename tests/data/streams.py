"""A stream of PIQA rows out of a list, and loaders over it."""

from __future__ import annotations

import functools
import itertools

from smoa_lightning.data.batches.collate import pad_rows
from smoa_lightning.data.batches.packing import collate_packed
from smoa_lightning.data.batches.stream import StreamingRows, StreamLoader, StreamOrder
from smoa_lightning.data.encoding.encode_examples import Encoding
from smoa_lightning.data.rows.readers import Located
from smoa_lightning.data.rows.row_stream import RowStream
from smoa_lightning.data.tasks import get_task

from .conftest import character_tokenizer

TASK = get_task("piqa")
NUM_ROWS = 230
ROWS = [
    {"goal": f"goal {i % 90}", "sol1": "use " + "ab" * (i % 9 + 1), "sol2": f"use {i} of them", "label": i % 2}
    for i in range(NUM_ROWS)
]


def memory(rows: list = ROWS, limit: int | None = None, name: str = "rows") -> RowStream:
    """Return a stream that breaks when more than ``limit`` rows are asked of it."""

    def read():
        for number, row in enumerate(rows, start=1):
            assert limit is None or number <= limit, "read too far"
            yield Located(f"{name}, row {number}", row)

    return RowStream(name, name, read)


def streaming(stream: RowStream | None = None, **settings) -> StreamingRows:
    encoding = Encoding(max_length=settings.pop("max_length", 64), overlong=settings.pop("overlong", "error"))
    return StreamingRows(
        stream or memory(), TASK, TASK.protocol(), character_tokenizer(), encoding, **{"buffer_rows": 40, **settings}
    )


def loader(rows: StreamingRows | None = None, **settings) -> StreamLoader:
    rows = rows or streaming()
    order = StreamOrder(
        "rows",
        **{"batch_size": 4, "seed": 3, "buffer_rows": rows.buffer_rows, "bucket": 2, "epoch_batches": 7, **settings},
    )
    collate = collate_packed if order.pack_length else pad_rows
    return StreamLoader(rows, order, functools.partial(collate, pad_id=0))


def batches(loader: StreamLoader, count: int) -> list:
    """Return the next batches of a loader over as many of its epochs as it takes."""
    epochs = itertools.chain.from_iterable(iter(loader) for _ in itertools.count())
    return [batch["input_ids"].tolist() for batch in itertools.islice(epochs, count)]


def pass_of(rows: StreamingRows, epoch: int) -> list:
    return [row for _, block in rows.blocks(epoch) for row in block]
