"""The order of batches and the loaders: length buckets, and a loader that resumes where it was.

The loaders are plain iterables and no ``torch.utils.data.DataLoader``: Lightning replaces samplers inside of those (for
DDP, for prediction) and cannot tell the batches that workers have fetched from those that training has seen.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import Batch, ReplyItem, collate_choices, collate_replies


def bucketed_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, bucket: int = 32, group: int = 1
) -> list[list[int]]:
    """Shuffle rows into batches of similar lengths; each row stands in exactly one.

    The rows are shuffled, cut into stretches of ``bucket * group`` batches, sorted by length within each, cut into
    batches, and the batches shuffled. One batch may be smaller. The outcome depends on the arguments only.

    Args:
        lengths: Length of each row in tokens.
        batch_size: Rows in a batch.
        seed: Seed of the order.
        epoch: Epoch; each has its own order.
        bucket: How many batches to sort together: more means less padding and less chance.
        group: Batches of similar length that stay side by side, for as many processes that step together.
    """
    rng = random.Random(f"{seed}/{epoch}")  # seeding by text: stable over Python versions and platforms
    order = list(range(len(lengths)))
    rng.shuffle(order)
    stretch = batch_size * bucket * group
    steps: list[list[list[int]]] = []
    for start in range(0, len(order), stretch):
        rows = sorted(order[start : start + stretch], key=lengths.__getitem__)
        batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        steps += [batches[i : i + group] for i in range(0, len(batches), group)]
    # a last group that is not full stays last: in the middle it would shift which batches step together
    tail = steps.pop() if steps and len(steps[-1]) < group else []
    rng.shuffle(steps)
    steps.append(tail)
    return [batch for step in steps for batch in step]


def longest_first(
    lengths: Sequence[int], num_rows: Sequence[int], max_items: int, max_tokens: int | None
) -> list[list[int]]:
    """Batch items in order of falling length, so that a batch that is too big for the memory comes first.

    Args:
        lengths: Length of each item's longest row.
        num_rows: Rows (choices) of each item.
        max_items: Most items in a batch.
        max_tokens: Most tokens in a batch with its padding, or None; one item alone may exceed it.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    rows = 0
    for item in order:
        rows += num_rows[item]
        longest = lengths[batches[-1][0]] if batches else 0
        too_many = not batches or len(batches[-1]) >= max_items
        if too_many or (max_tokens is not None and rows * longest > max_tokens):
            batches.append([])
            rows = num_rows[item]
        batches[-1].append(item)
    return batches


@dataclass(frozen=True)
class BucketOrder:
    """The order of training batches: an endless stream of epochs, each row once an epoch, shuffled anew in each.

    With several processes the batches go round in turn. Where their number does not divide, the first batches of the
    epoch are given out again at its end (at most ``world_size - 1`` of them), so that all processes make as many steps.

    Args:
        lengths: Length of each row in tokens.
        batch_size: Rows in a batch.
        seed: Seed of the order.
        bucket: How many batches are sorted by length together.
        rank: This process.
        world_size: How many processes there are.
    """

    lengths: tuple[int, ...]
    batch_size: int
    seed: int = 0
    bucket: int = 32
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        """Batches of one epoch in one process."""
        return math.ceil(math.ceil(len(self.lengths) / self.batch_size) / self.world_size)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Return this process's batches of an epoch."""
        batches = bucketed_batches(self.lengths, self.batch_size, self.seed, epoch, self.bucket, group=self.world_size)
        short = len(self) * self.world_size - len(batches)
        batches += [batches[i % len(batches)] for i in range(short)]
        return batches[self.rank :: self.world_size]

    def upcoming(self, position: int) -> list[list[int]]:
        """Return the ``len(self)`` batches of the stream from a position on."""
        epoch, start = divmod(position, len(self))
        return self.epoch(epoch)[start:] + (self.epoch(epoch + 1)[:start] if start else [])

    def identity(self) -> dict[str, int]:
        """Return what the order depends on: a position is only worth something in the same order."""
        return {
            "num_rows": len(self.lengths),
            "num_tokens": sum(self.lengths),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "bucket": self.bucket,
            "world_size": self.world_size,
        }


class BatchLoader:
    """The same batches every time, put together here or in worker processes.

    Args:
        rows: What the batches index.
        batches: Indices of each batch.
        collate: Rows of a batch -> batch.
        num_workers: Processes that collate; 0 means this one.
        pin_memory: Whether to copy batches into page-locked memory.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        batches: Sequence[list[int]],
        collate: Callable[[list[Any]], Batch],
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.rows = rows
        self.batches = batches
        self.collate = collate
        self.num_workers = num_workers
        self.pin_memory = pin_memory

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return self._load(self.batches)

    def _load(self, batches: Sequence[list[int]]) -> Iterator[Batch]:
        if self.num_workers == 0 and not self.pin_memory:
            yield from (self.collate([self.rows[i] for i in batch]) for batch in batches)
            return
        yield from DataLoader(
            self.rows,  # type: ignore[arg-type]  # a sequence is a map-style data set
            batch_sampler=batches,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            # its own generator: the seed of the workers is then not drawn from torch's global one, which dropout uses
            generator=torch.Generator().manual_seed(0),
        )


def scoring_loader(
    items: Sequence[Any],
    eval_batch_size: int,
    max_tokens: int | None,
    pad_id: int,
    pad_multiple: int = 1,
    place: tuple[int, int] = (0, 1),
    num_workers: int = 0,
    pin_memory: bool = False,
) -> BatchLoader:
    """Return this process's share of batches over choice items or reply items, the longest first.

    Args:
        items: ``ChoiceItem`` or ``ReplyItem``, all of one kind.
        eval_batch_size: Most items in a batch.
        max_tokens: Most tokens in a batch with its padding, or None.
        pad_id: Token to pad with.
        pad_multiple: Pad to a multiple of so many tokens.
        place: This process and how many there are; each takes every n-th batch, so every item is scored exactly once.
        num_workers: Processes that collate; 0 means this one.
        pin_memory: Whether to copy batches into page-locked memory.

    Raises:
        UserError: fewer items than processes.
    """
    if len(items) < place[1]:
        raise UserError(
            f"{len(items)} rows to be scored are too few for {place[1]} processes; train with fewer devices."
        )
    replies = bool(items) and isinstance(items[0], ReplyItem)
    batches = longest_first(
        [len(item) for item in items],
        [1 if replies else len(item.rows) for item in items],
        # Small enough for each process to get a batch: Lightning skips a process without one, and the others wait.
        min(eval_batch_size, len(items) // place[1]),
        max_tokens,
    )
    collate: Any = collate_replies if replies else collate_choices
    collate = functools.partial(collate, pad_id=pad_id, pad_multiple=pad_multiple)
    return BatchLoader(items, batches[place[0] :: place[1]], collate, num_workers, pin_memory)


class ResumableLoader(BatchLoader):
    """Training batches whose state is one number: how many batches of the stream training has received.

    An iterator gives the next ``len(loader)`` batches of the stream, from wherever the last one was left: so the n-th
    batch of a run is the same whether or not it was interrupted, whatever the trainer makes of its epochs. (Lightning
    2.6 counts one too many after a resume from the end of an epoch with ``max_steps``.) The position counts batches
    handed out, not those that workers fetched ahead, and is asked for when the first batch is wanted, since Lightning
    makes iterators that it then drops.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        order: BucketOrder,
        collate: Callable[[list[Any]], Batch],
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(rows, (), collate, num_workers, pin_memory)
        self.order = order
        self.position = 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._load(self.order.upcoming(self.position)):
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position and what the order depends on."""
        return {"position": self.position, "order": self.order.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the position of ``state``.

        Raises:
            UserError: the state belongs to another order of batches.
        """
        own, other = self.order.identity(), state["order"]
        changed = [f"{name} {other.get(name)} -> {own[name]}" for name in own if other.get(name) != own[name]]
        if changed:
            raise UserError(
                f"the checkpoint stopped in another order of batches than this one ({', '.join(changed)}):"
                " resume with the same data settings, or start a new run."
            )
        self.position = int(state["position"])
