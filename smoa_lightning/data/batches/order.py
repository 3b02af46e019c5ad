"""The order of batches: length buckets for training, the longest first for scoring."""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoa_lightning.data.rows.lazy_sequence import LazySequence
from smoa_lightning.data.rows.splits import permutation


class Batches(LazySequence[list[int]]):
    """Batches of row numbers. Each is a piece of one array, since a list of lists needs 60 bytes for each row.

    Args:
        rows: The rows of all batches, one batch after the other.
        starts: The start of each batch, and at the end the number of rows.
        chosen: The batches to use, in their order; None: all batches.
    """

    def __init__(self, rows: np.ndarray, starts: np.ndarray, chosen: np.ndarray | None = None) -> None:
        self._rows, self._starts = rows, starts
        self._chosen = np.arange(len(starts) - 1) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def item(self, number: int) -> list[int]:
        """Return a batch by its number."""
        batch = self._chosen[number]
        rows: list[int] = self._rows[self._starts[batch] : self._starts[batch + 1]].tolist()
        return rows

    def at(self, places: np.ndarray) -> Batches:
        """Return the batches at some places."""
        return Batches(self._rows, self._starts, self._chosen[places])


def bucketed_batches(
    lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, epoch: int, bucket: int = 32
) -> Batches:
    """Shuffle rows into batches of similar lengths; each row is in exactly one batch.

    The rows are shuffled and cut into stretches of ``bucket`` batches. Each stretch is sorted by length and cut
    into batches, and the batches are shuffled. One batch may be smaller. The result depends on the arguments only.

    Args:
        lengths: Length of each row in tokens.
        batch_size: Rows in a batch.
        seed: Seed of the order.
        epoch: Epoch; each has its own order.
        bucket: How many batches are sorted together: a larger number means less padding, and less random batches.
    """
    rng = random.Random(f"{seed}/{epoch}")  # seeding by text: stable over Python versions and platforms
    rows, lengths = permutation(rng, len(lengths)), np.asarray(lengths)
    stretch = batch_size * bucket
    for start in range(0, len(rows), stretch):
        part = rows[start : start + stretch]
        part[:] = part[np.argsort(lengths[part], kind="stable")]
    starts = np.append(np.arange(0, len(rows), batch_size), len(rows))
    return Batches(rows, starts, permutation(rng, len(starts) - 1))


def longest_first(
    lengths: Sequence[int] | np.ndarray,
    num_rows: Sequence[int] | np.ndarray,
    max_items: int,
    max_tokens: int | None,
) -> Batches:
    """Batch items from the longest to the shortest, so that a batch that is too large for the memory comes first.

    Args:
        lengths: Length of each item's longest row.
        num_rows: Rows (choices) of each item.
        max_items: Largest number of items in a batch.
        max_tokens: Largest number of tokens in a batch with its padding, or None; a single item may exceed it.
    """
    lengths, num_rows = np.asarray(lengths), np.asarray(num_rows)
    order = np.argsort(-lengths, kind="stable")
    starts = array("q")
    rows = 0
    for place, item in enumerate(order):
        rows += num_rows[item]
        too_many = not starts or place - starts[-1] >= max_items
        if too_many or (max_tokens is not None and rows * lengths[order[starts[-1]]] > max_tokens):
            starts.append(place)
            rows = num_rows[item]
    starts.append(len(order))
    return Batches(order, np.array(starts))


class Parts(LazySequence[list[int]]):
    """The rows of one process in each batch, and after them the longest row of the batch.

    Args:
        batches: The batches of all processes.
        lengths: Length of each row in tokens.
        rank: The process.
        world_size: How many processes there are.
    """

    def __init__(self, batches: Batches, lengths: Sequence[int] | np.ndarray, rank: int, world_size: int) -> None:
        self._batches, self._lengths, self._rank, self._world_size = batches, lengths, rank, world_size

    def __len__(self) -> int:
        return len(self._batches)

    def item(self, number: int) -> list[int]:
        """Return a part by the number of its batch."""
        batch = self._batches[number]
        return [*batch[self._rank :: self._world_size], max(batch, key=self._lengths.__getitem__)]


@dataclass(frozen=True, eq=False)
class BucketOrder:
    """The order of training batches: an endless stream of epochs. Each epoch has every row once, in a new order.

    Several processes share the batches of one process that has ``batch_size * world_size`` rows in a batch: process
    ``rank`` takes every ``world_size``-th row of each. The rows of a batch are sorted by length, so the parts have
    nearly the same number of tokens. A process gets its rows, and after them the longest row of the whole batch. That
    row only decides the padding (:func:`smoa_lightning.data.batches.collate.collate_part`). The last batch may have
    fewer rows than there are processes; then a process gets the longest row only.

    Args:
        lengths: Length of each row in tokens.
        batch_size: Rows of one process in a batch.
        seed: Seed of the order.
        bucket: How many batches are sorted by length together.
        rank: This process.
        world_size: How many processes there are.
        augmentation: What changes the rows at random in each epoch, as text. With it, row i of N has the number i + e N
            in epoch e.
    """

    lengths: Sequence[int] | np.ndarray
    batch_size: int
    seed: int = 0
    bucket: int = 32
    rank: int = 0
    world_size: int = 1
    augmentation: str | None = None

    def __len__(self) -> int:
        """Batches of one epoch, the same number for all processes."""
        return math.ceil(len(self.lengths) / (self.batch_size * self.world_size))

    def epoch(self, epoch: int) -> Sequence[list[int]]:
        """Return this process's part of each batch of an epoch."""
        whole = bucketed_batches(self.lengths, self.batch_size * self.world_size, self.seed, epoch, self.bucket)
        return whole if self.world_size == 1 else Parts(whole, self.lengths, self.rank, self.world_size)

    def upcoming(self, position: int) -> Iterator[list[int]]:
        """Yield ``len(self)`` batches of the stream, from a position on."""
        epoch, start = divmod(position, len(self))
        yield from self._numbered(epoch, start, None)
        if start:
            yield from self._numbered(epoch + 1, 0, start)

    def _numbered(self, epoch: int, start: int, stop: int | None) -> Iterator[list[int]]:
        batches = itertools.islice(self.epoch(epoch), start, stop)
        if self.augmentation is None:
            return batches
        return ([row + epoch * len(self.lengths) for row in batch] for batch in batches)

    def identity(self) -> dict[str, Any]:
        """Return what the order depends on: a position means the same batch only in the same order."""
        identity: dict[str, Any] = {
            "num_rows": len(self.lengths),
            "num_tokens": int(np.sum(self.lengths)),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "bucket": self.bucket,
            "world_size": self.world_size,
        }
        if self.world_size > 1:  # earlier versions gave each process whole batches, in another order
            identity["rows_of_a_shared_batch"] = self.batch_size * self.world_size
        if self.augmentation is not None:
            identity["augmentation"] = self.augmentation
        return identity
