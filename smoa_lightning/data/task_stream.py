"""The training rows of one task as a stream: where they are read, what decides them, which of them select."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.stream import DEFAULT_BUFFER_ROWS, DEFAULT_SELECTION_SHARE, StreamingRows
from smoa_lightning.data.encoding import cache
from smoa_lightning.data.rows.row_stream import hub_stream, local_stream
from smoa_lightning.data.rows.sources import Provenance, fetch, rows_digest, split_file
from smoa_lightning.data.rows.splits import DEFAULT_SELECTION_ROWS
from smoa_lightning.data.tasks import Row

if TYPE_CHECKING:
    from smoa_lightning.data.rows.task_rows import TaskRows


def open_stream(rows: TaskRows, buffer_rows: int = DEFAULT_BUFFER_ROWS) -> StreamingRows:
    """Return the training rows of a task to be read piece by piece.

    Raises:
        UserError: rows that cannot be streamed: the embedded ones, and files of some endings.
    """
    assert rows.tokenizer is not None
    task, settings, source = rows.task, rows.settings, rows.resolve()
    if source == "embedded":
        raise UserError("data.streaming: embedded rows are few and in memory; set data.streaming: false.")
    if source == "hub":
        assert rows.repository is not None
        snapshot = fetch(rows.repository, rows.revision)
        stream = hub_stream(snapshot, rows.repository, task, task.train_split)
    else:
        stream = local_stream(split_file(settings.path, task.train_split), task)
    share = 0.0 if settings.selection_rows == 0 else DEFAULT_SELECTION_SHARE
    return StreamingRows(
        *(stream, task, rows.protocol, rows.tokenizer, rows.encoding, settings.seed),
        *(buffer_rows, share, settings.bad_rows),
    )


def stream_identity(rows: TaskRows, stream: StreamingRows) -> str:
    """Return a digest of what decides the rows of a stream: a run resumes in the same one only."""
    assert rows.tokenizer is not None
    return cache.cache_key(
        rows=stream.stream.identity,
        task=rows.task.name,
        version=rows.task.version,
        protocol=rows.protocol.name,
        encoding=asdict(rows.encoding),
        selection_share=stream.selection_share,
        bad_rows=stream.bad_rows,
        tokenizer=cache.tokenizer_digest(rows.tokenizer),
    )


def selection_of(rows: TaskRows) -> tuple[list[Row], Provenance]:
    """Return the rows of a stream that select the checkpoint, and their provenance; the digest is theirs alone.

    Raises:
        UserError: rows that cannot be streamed; none of them is held out.
    """
    stream, wanted = open_stream(rows), rows.settings.selection_rows
    located = stream.selection_rows(DEFAULT_SELECTION_ROWS if wanted is None else wanted)
    held, source = [row for _, row in located], rows.resolve()
    place, revision = f"{stream.stream.name} (selection rows)", rows.revision if source == "hub" else None
    return held, Provenance(source, place, revision, None, rows_digest(held), len(held), num_bad_rows=0)
