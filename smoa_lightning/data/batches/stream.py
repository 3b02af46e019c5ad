"""Training rows that do not fit into memory: read as they are needed, shuffled in blocks, resumable at any batch.

The rows of a file are read in their order, again and again; each pass is an epoch. Rows of held-out groups are left
out; the rest is collected into a block of ``buffer_rows``, encoded, shuffled into batches of similar length as rows in
memory are, and handed out before the next block is read. So at most one block is in memory, and rows that stand further
apart in the file than a block never change places: a file that is sorted wants to be shuffled once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import Batch
from smoa_lightning.data.batches.loaders import ResumableLoader, bucketed_batches
from smoa_lightning.data.batches.packing import pack_rows
from smoa_lightning.data.encoding.encode import TokenRow
from smoa_lightning.data.encoding.encode_examples import Encoding, encode_training
from smoa_lightning.data.rows.readers import Located
from smoa_lightning.data.rows.row_stream import RowStream, hub_stream, local_stream
from smoa_lightning.data.tasks import Protocol, Row, RowError, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "DEFAULT_BUFFER_ROWS", "DEFAULT_SELECTION_SHARE", "RowStream", "StreamLoader", "StreamOrder", "StreamingRows",
    "held_out", "hub_stream", "local_stream",
]  # fmt: skip

DEFAULT_BUFFER_ROWS = 10_000
DEFAULT_SELECTION_SHARE = 0.05


# ---- which rows are for what


def held_out(group: str, seed: int, share: float) -> bool:
    """Say whether a group is held out: a share of all groups, told from the group itself and the seed alone.

    >>> held_out("a", 0, 0.0), held_out("a", 0, 1.0)
    (False, True)
    """
    digest = hashlib.sha256(f"selection/{seed}/{group}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


class StreamingRows:
    """Checked, encoded training rows of a stream in blocks, and the held-out rows that select the checkpoint.

    Args:
        stream: Where the rows are read.
        task: The task whose rows they are.
        protocol: Makes their examples.
        tokenizer: The tokenizer.
        encoding: How examples become tokens.
        seed: Seed of the hold-out.
        buffer_rows: Rows in a block.
        selection_share: Share of the groups that is held out; 0 holds out none.
        bad_rows: What to do with a row that breaks the task's schema: ``error``, or ``skip`` and count.
    """

    def __init__(
        self,
        stream: RowStream,
        task: Task,
        protocol: Protocol,
        tokenizer: PreTrainedTokenizerBase,
        encoding: Encoding,
        seed: int = 0,
        buffer_rows: int = DEFAULT_BUFFER_ROWS,
        selection_share: float = DEFAULT_SELECTION_SHARE,
        bad_rows: Literal["error", "skip"] = "error",
    ) -> None:
        self.stream, self.task, self.protocol = stream, task, protocol
        self.tokenizer, self.encoding = tokenizer, encoding
        self.seed, self.buffer_rows, self.selection_share, self.bad_rows = seed, buffer_rows, selection_share, bad_rows
        #: what this process has read for training since it began: rows, bad_rows, skipped_overlong, truncated, tokens
        self.counts: Counter[str] = Counter()

    def checked(self, located: Located) -> list[Located] | None:
        """Return the rows that a raw row stands for, None where it is bad and skipped.

        Raises:
            UserError: a bad row, with its place and field.
        """
        try:
            return [Located(located.place, row) for row in self.task.rows_of(located.row)]
        except RowError as error:
            if self.bad_rows == "error":
                raise UserError(f"{located.place}: {error}.") from None
            return None

    def _is_held_out(self, row: Row) -> bool:
        return held_out(self.task.group(row), self.seed, self.selection_share)

    def selection_rows(self, count: int) -> list[Located]:
        """Return the first ``count`` rows of held-out groups, or fewer where the stream has no more.

        Raises:
            UserError: there is none.
        """
        every = (row for located in self.stream.read() for row in self.checked(located) or [])
        rows = list(itertools.islice((row for row in every if self._is_held_out(row.row)), count))
        if count and not rows:
            raise UserError(
                f"{self.stream.name}: no group of rows falls into the held-out share of {self.selection_share:g}, so"
                " nothing selects the checkpoint; set data.selection_rows: 0."
            )
        return rows

    def blocks(self, epoch: int, start: int = 0) -> Iterator[tuple[int, list[TokenRow]]]:
        """Yield (raw rows of the pass before the block, its encoded rows) for the rest of a pass.

        The first block of every pass but the first is smaller by chance, so that the passes part into other blocks.

        Args:
            epoch: Number of the pass.
            start: Raw rows to be passed over unchecked: where a block of this pass begins.

        Raises:
            UserError: a bad row; a row that does not fit.
        """
        source = itertools.islice(self.stream.read(), start, None)
        first = Random(f"{self.seed}/{epoch}").randint(self.buffer_rows // 2 + 1, self.buffer_rows)
        size = first if start == 0 and epoch > 0 else self.buffer_rows
        more = True
        while more:
            begin, rows, more = start, [], False
            for located in source:
                start += 1
                found = self.checked(located)
                self.counts["bad_rows"] += found is None
                rows += [row for row in found or [] if not self._is_held_out(row.row)]
                if len(rows) >= size:
                    more = True
                    break
            yield begin, self._encoded(rows)
            size = self.buffer_rows

    def _encoded(self, rows: list[Located]) -> list[TokenRow]:
        examples = [self.protocol.example(row.row) for row in rows]
        encoded, found = encode_training(examples, lambda n: rows[n].place, self.tokenizer, self.encoding)
        self.counts.update(
            rows=len(encoded),
            skipped_overlong=found.num_skipped,
            truncated=found.num_truncated,
            tokens=sum(found.lengths),
        )
        return encoded


# ---- the batches


@dataclass(frozen=True)
class StreamOrder:
    """The order of the batches of a stream.

    Args:
        source: What is read, and all else that decides its rows.
        batch_size: Rows in a batch; with packing, sequences.
        seed: Seed of the order.
        buffer_rows: Rows in a block.
        bucket: How many batches are sorted by length together.
        pack_length: Longest packed sequence, None without packing.
        rank: This process.
        world_size: How many processes there are.
        epoch_batches: How many batches of a process the trainer takes for an epoch.
    """

    source: str
    batch_size: int
    seed: int = 0
    buffer_rows: int = DEFAULT_BUFFER_ROWS
    bucket: int = 32
    pack_length: int | None = None
    rank: int = 0
    world_size: int = 1
    epoch_batches: int = 1000

    def __len__(self) -> int:
        return self.epoch_batches

    def identity(self) -> dict[str, Any]:
        """Return what the order depends on: a position is only worth something in the same order."""
        return {name: value for name, value in asdict(self).items() if name not in ("rank", "epoch_batches")}

    def batches(self, rows: list[TokenRow], epoch: int, start: int) -> list[list[Any]]:
        """Return the batches of a block, for all processes in turn."""
        made: list[Any] = list(rows)
        if self.pack_length is not None:
            made = list(pack_rows(rows, self.pack_length, Random(f"{self.seed}/{epoch}/{start}").getrandbits(32)))
        seed = Random(f"{self.seed}/{start}").getrandbits(32)
        order = bucketed_batches(
            [len(row) for row in made], self.batch_size, seed, epoch, self.bucket, group=self.world_size
        )
        return [[made[i] for i in batch] for batch in order]


class StreamLoader(ResumableLoader):
    """Training batches of an endless stream of rows; its state says where in the file the block under way begins.

    The stream has no length, the loader has one, ``epoch_batches``: of a loader without, Lightning fetches a batch
    ahead of the one that it trains on, and the position would be one too high in every checkpoint. The next epoch goes
    on where the last one stopped.

    Process r of n takes the batches r, r + n, r + 2n, ... of the stream, so all make as many steps. Each reads and
    encodes all rows, since their lengths decide the batches.

    Args:
        rows: The rows.
        order: The order of batches.
        collate: Rows of a batch -> batch.
    """

    order: StreamOrder  # type: ignore[assignment]

    def __init__(self, rows: StreamingRows, order: StreamOrder, collate: Callable[[list[Any]], Batch]) -> None:
        super().__init__((), order, collate)  # type: ignore[arg-type]
        self.stream = rows
        self._block = {"epoch": 0, "start": 0, "before": 0}  # the block of the last batch, and the batches before it
        self._batches: Iterator[list[Any]] | None = None

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self.order)):
            if self._batches is None:
                self._batches = self._upcoming()
            batch = self.collate(next(self._batches))
            self.position += 1
            yield batch

    def _upcoming(self) -> Iterator[list[Any]]:
        """Yield the rows of this process's batches from the position on, without end."""
        wanted = self.position * self.order.world_size + self.order.rank
        epoch, start, before = self._block["epoch"], self._block["start"], self._block["before"]
        while True:
            empty = True
            for begin, rows in self.stream.blocks(epoch, start):
                self._block = {"epoch": epoch, "start": begin, "before": before}
                batches = self.order.batches(rows, epoch, begin)
                empty = empty and not batches
                while wanted < before + len(batches):
                    yield batches[wanted - before]
                    wanted += self.order.world_size
                before += len(batches)
            if empty and start == 0:
                raise UserError(f"{self.stream.stream.name}: no usable training rows.")
            epoch, start = epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position, the block that it is in, and what the order depends on."""
        return {**super().state_dict(), "block": dict(self._block)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the position of ``state``: rows before its block are read past, not checked or encoded.

        Raises:
            UserError: the state belongs to another order of batches.
        """
        super().load_state_dict(state)
        self._block = dict(state["block"])
        self._batches = None
