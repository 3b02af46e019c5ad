"""The loaders of batches: for scoring with the same batches in each pass, for training with a position to resume from.

The loaders are plain iterables, not ``torch.utils.data.DataLoader``, for two reasons. Lightning replaces the samplers
of a ``DataLoader`` (for DDP, for prediction). It also counts batches that workers have fetched, but that training has
not used yet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import (
    Batch,
    collate_choices,
    collate_images,
    collate_labels,
    collate_part,
    collate_replies,
    pad_rows,
)
from smoa_lightning.data.batches.order import BucketOrder, longest_first
from smoa_lightning.data.batches.packing import collate_packed, pack_rows
from smoa_lightning.data.encoding.image_items import ImageItems, ImagesOfEpochs
from smoa_lightning.data.encoding.items import (
    ChoiceItem,
    ImageItem,
    LabelledItem,
    LazyItems,
    ReplyItem,
    TokenRow,
    lengths_of,
    num_rows_of,
)

COLLATE: dict[type, Callable[..., Batch]] = {
    TokenRow: pad_rows,
    ChoiceItem: collate_choices,
    ReplyItem: collate_replies,
    LabelledItem: collate_labels,
    ImageItem: collate_images,
}


class BatchLoader:
    """The same batches in every pass, collated in this process or in worker processes.

    Args:
        rows: The rows.
        batches: The row indices of each batch.
        collate: Rows of a batch -> batch.
        num_workers: Processes that collate; 0 means the main process.
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

    def _load(self, batches: Iterable[list[int]]) -> Iterator[Batch]:
        if self.num_workers == 0 and not self.pin_memory:
            yield from (self.collate([self.rows[i] for i in batch]) for batch in batches)
            return
        loader: DataLoader[Any] = DataLoader(
            self.rows,  # type: ignore[arg-type]  # a sequence is a map-style data set
            batch_sampler=batches,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            # with its own generator, the seed of the workers changes nothing in torch's global one, which dropout uses
            generator=torch.Generator().manual_seed(0),
        )
        try:
            yield from loader
        except UserError as error:  # torch adds the traceback of the worker
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error


class ResumableLoader(BatchLoader):
    """Training batches with one number as their state: how many batches of the stream training has received.

    An iterator gives the next ``len(loader)`` batches of the stream, from the position of the last iterator on. So the
    n-th batch of a run is the same with and without interruptions, and does not depend on the trainer's count of
    epochs. (Lightning 2.6 counts one epoch too many after a resume from the end of an epoch with ``max_steps``.)

    The position counts batches that training has received, without those that workers have fetched in advance. An
    iterator reads it at its first batch, since Lightning makes iterators that it never uses.
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
        """Return the position, and the identity of the order."""
        return {"position": self.position, "order": self.order.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the position of ``state``.

        Raises:
            UserError: the state belongs to a different order of batches.
        """
        own, other = self.order.identity(), state["order"]
        if "block" in state:
            raise UserError(
                "the checkpoint is of a run with data.streaming, and that order of batches does not exist any more:"
                " start a new run."
            )
        names = dict.fromkeys([*own, *other])
        changed = [f"{name} {other.get(name)} -> {own.get(name)}" for name in names if other.get(name) != own.get(name)]
        if changed:
            raise UserError(
                f"the checkpoint has a different order of batches than this run ({', '.join(changed)}):"
                " resume with the same data settings, or start a new run."
            )
        self.position = int(state["position"])


# ---- the loaders of a run


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
    """Return this process's batches of items to score, the longest items first.

    Args:
        items: ``ChoiceItem``, ``ReplyItem``, ``LabelledItem`` or ``ImageItem``, all of one kind.
        eval_batch_size: Largest number of items in a batch.
        max_tokens: Largest number of tokens in a batch with its padding, or None.
        pad_id: Token to pad with.
        pad_multiple: Pad to a multiple of this number of tokens.
        place: This process, and the number n of processes. Each takes every n-th batch, so each item is scored once.
        num_workers: Processes that collate; 0 means the main process.
        pin_memory: Whether to copy batches into page-locked memory.

    Raises:
        UserError: fewer items than processes.
    """
    if len(items) < place[1]:
        raise UserError(f"{len(items)} rows to score are too few for {place[1]} processes; train with fewer devices.")
    batches = longest_first(
        lengths_of(items),
        num_rows_of(items),
        # Each process must get a batch: Lightning skips a process without one, and the others wait for it.
        min(eval_batch_size, len(items) // place[1]),
        max_tokens,
    )
    collate = functools.partial(COLLATE[type(items[0])], pad_id=pad_id, pad_multiple=pad_multiple)
    own = batches.at(np.arange(place[0], len(batches), place[1]))
    return BatchLoader(items, own, collate, num_workers, pin_memory)


def plain_loader(
    items: LazyItems, rows: np.ndarray, sizes: tuple[int, int | None], padding: tuple[int, int], place: tuple[int, int]
) -> BatchLoader:
    """Return this process's batches of training rows without packing, the longest first; it may have none.

    Args:
        items: The encoded training rows.
        rows: The numbers of those to take.
        sizes: Largest number of rows in a batch, and of tokens with padding (None: no limit).
        padding: Token to pad with, and the multiple of tokens to pad to.
        place: This process, and the number of processes.
    """
    order = longest_first(items.lengths[rows], np.ones(len(rows), np.int64), *sizes)
    batches = [rows[batch].tolist() for batch in order]
    collate = functools.partial(COLLATE[type(items[0])], pad_id=padding[0], pad_multiple=padding[1])
    return BatchLoader(items, batches[place[0] :: place[1]], collate)


@dataclass(frozen=True)
class TrainingSettings:
    """The settings that decide the training batches. ``TaskDataModule`` explains the fields."""

    batch_size: int
    max_length: int
    seed: int = 0
    bucket_batches: int = 32
    pad_multiple: int = 1
    packing: bool = False
    num_workers: int = 0
    pin_memory: bool = False


def training_loader(
    rows: LazyItems, settings: TrainingSettings, pad_id: int, place: tuple[int, int] = (0, 1)
) -> ResumableLoader:
    """Return a new loader of training batches.

    Args:
        rows: The encoded training rows.
        settings: The settings of the batches.
        pad_id: Token to pad with.
        place: This process, and the number of processes.
    """
    collate: Any = collate_packed if settings.packing else COLLATE[type(rows[0])]
    collate = functools.partial(collate, pad_id=pad_id, pad_multiple=settings.pad_multiple)
    if place[1] > 1:
        collate = functools.partial(collate_part, collate=collate)
    items = pack_rows(rows, settings.max_length, settings.seed) if settings.packing else rows
    changes = rows.augmentation if isinstance(rows, ImageItems) else None
    text = None if changes is None else changes.text
    order = BucketOrder(items.lengths, settings.batch_size, settings.seed, settings.bucket_batches, *place, text)
    images = ImagesOfEpochs(rows) if isinstance(rows, ImageItems) and changes is not None else items
    return ResumableLoader(images, order, collate, settings.num_workers, settings.pin_memory)
