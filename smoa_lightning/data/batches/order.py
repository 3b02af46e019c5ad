"""The order of batches: length buckets for training, the longest first for scoring."""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, epoch: int, bucket: int = 32, group: int = 1
) -> Batches:
    """Shuffle rows into batches of similar lengths; each row is in exactly one batch.

    The rows are shuffled and cut into stretches of ``bucket * group`` batches. Each stretch is sorted by length and cut
    into batches, and the batches are shuffled. One batch may be smaller. The result depends on the arguments only.

    Args:
        lengths: Length of each row in tokens.
        batch_size: Rows in a batch.
        seed: Seed of the order.
        epoch: Epoch; each has its own order.
        bucket: How many batches are sorted together: a larger number means less padding, and less random batches.
        group: Number of consecutive batches of similar length: one for each process of a training step.
    """
    rng = random.Random(f"{seed}/{epoch}")  # seeding by text: stable over Python versions and platforms
    rows, lengths = permutation(rng, len(lengths)), np.asarray(lengths)
    stretch = batch_size * bucket * group
    for start in range(0, len(rows), stretch):
        part = rows[start : start + stretch]
        part[:] = part[np.argsort(lengths[part], kind="stable")]
    starts = np.append(np.arange(0, len(rows), batch_size), len(rows))
    whole, left = divmod(len(starts) - 1, group)
    steps = permutation(rng, whole)
    chosen = (steps[:, None] * group + np.arange(group)).ravel()
    # an incomplete group stays the last one: before others, it would mix batches of different lengths in a step
    return Batches(rows, starts, np.append(chosen, whole * group + np.arange(left)))


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


@dataclass(frozen=True, eq=False)
class BucketOrder:
    """The order of training batches: an endless stream of epochs. Each epoch has every row once, in a new order.

    With several processes, consecutive batches go to different processes. If the number of batches is not a multiple
    of ``world_size``, the first batches of the epoch come again at its end, at most ``world_size - 1`` of them. So all
    processes make the same number of steps.

    Args:
        lengths: Length of each row in tokens.
        batch_size: Rows in a batch.
        seed: Seed of the order.
        bucket: How many batches are sorted by length together.
        rank: This process.
        world_size: How many processes there are.
    """

    lengths: Sequence[int] | np.ndarray
    batch_size: int
    seed: int = 0
    bucket: int = 32
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        """Batches of one epoch in one process."""
        return math.ceil(math.ceil(len(self.lengths) / self.batch_size) / self.world_size)

    def epoch(self, epoch: int) -> Batches:
        """Return this process's batches of an epoch."""
        batches = bucketed_batches(self.lengths, self.batch_size, self.seed, epoch, self.bucket, group=self.world_size)
        places = np.arange(self.rank, len(self) * self.world_size, self.world_size) % len(batches)
        return batches.at(places)

    def upcoming(self, position: int) -> Iterator[list[int]]:
        """Yield ``len(self)`` batches of the stream, from a position on."""
        epoch, start = divmod(position, len(self))
        yield from itertools.islice(self.epoch(epoch), start, None)
        if start:
            yield from itertools.islice(self.epoch(epoch + 1), start)

    def identity(self) -> dict[str, int]:
        """Return what the order depends on: a position means the same batch only in the same order."""
        return {
            "num_rows": len(self.lengths),
            "num_tokens": int(np.sum(self.lengths)),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "bucket": self.bucket,
            "world_size": self.world_size,
        }
