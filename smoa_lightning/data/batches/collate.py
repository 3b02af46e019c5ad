"""Encoded items to batches: rows are padded on the right, and the choices of an item are consecutive rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.items import IGNORED, ChoiceItem, ImageItem, LabelledItem, ReplyItem, TokenRow

Batch = dict[str, Any]


def pad_rows(rows: Sequence[TokenRow], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Pad rows on the right to the longest, rounded up to a multiple.

    Returns:
        ``input_ids`` (B, T), ``attention_mask`` (B, T) with 1 on the tokens of the row, ``labels`` (B, T) with -100 on
        the padding. Padding is marked by length, so an EOS is a target even if the pad token is EOS.
    """
    lengths = [len(row) for row in rows]
    ids, mask, labels = (filled(lengths, fill, pad_multiple) for fill in (pad_id, 0, IGNORED))
    for line, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        ids[line, :length], mask[line, :length], labels[line, :length] = row.ids, 1, row.labels
    names = "input_ids", "attention_mask", "labels"
    return {name: torch.from_numpy(matrix) for name, matrix in zip(names, (ids, mask, labels), strict=True)}


def filled(lengths: Sequence[int], fill: int, pad_multiple: int) -> np.ndarray:
    """Return a matrix for rows of these lengths, rounded up to a multiple, with ``fill`` in every cell."""
    return np.full((len(lengths), math.ceil(max(lengths) / pad_multiple) * pad_multiple), fill, dtype=np.int64)


def collate_part(rows: Sequence[Any], collate: Callable[[list[Any]], Batch]) -> Batch:
    """Collate the part of a process in a batch that several processes share.

    All parts are padded to the same length, as in one process. A process without rows of its own gets the longest row
    without targets: it takes part in the step, and its loss and gradients are zero.

    Args:
        rows: The rows of the process, and after them the longest row of the whole batch.
        collate: Collates training rows; every tensor that it returns has a line for each row, but ``num_tokens``.
    """
    *own, longest = rows
    batch = collate([*own, longest])
    if not own:
        return batch | {"labels": torch.full_like(batch["labels"], IGNORED), "num_tokens": torch.tensor(0)}
    tokens = {"num_tokens": torch.tensor(sum(map(len, own)))}
    return {
        name: value if value is None else value[: len(own)] for name, value in batch.items() if name not in tokens
    } | tokens


def collate_choices(items: Sequence[ChoiceItem], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Put all choices of all items into one batch of R = sum(num_choices) rows; the rows of an item are consecutive.

    Returns:
        The result of ``pad_rows`` for the R rows, ``num_bytes`` (R,), and for the I items ``num_choices``, ``label``
        and ``row``, (I,) each.
    """
    batch = pad_rows([row for item in items for row in item.rows], pad_id, pad_multiple)
    batch["num_bytes"] = torch.tensor([count for item in items for count in item.num_bytes])
    batch["num_choices"] = torch.tensor([len(item.rows) for item in items])
    batch["label"] = torch.tensor([item.label for item in items])
    batch["row"] = torch.tensor([item.row for item in items])
    return batch


def collate_labels(items: Sequence[LabelledItem], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Pad labelled items on the right to the longest, rounded up to a multiple.

    Returns:
        ``input_ids`` (B, T), ``attention_mask`` (B, T), ``token_type_ids`` (B, T) if the items have types, ``labels``
        (B,) float64, and ``row`` (B,).
    """
    lengths = [len(item) for item in items]
    ids, mask, types = (filled(lengths, fill, pad_multiple) for fill in (pad_id, 0, 0))
    for line, (item, length) in enumerate(zip(items, lengths, strict=True)):
        ids[line, :length], mask[line, :length] = item.ids, 1
        types[line, : len(item.types)] = item.types
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if items[0].types:
        batch["token_type_ids"] = torch.from_numpy(types)
    batch["labels"] = torch.tensor([item.label for item in items], dtype=torch.float64)
    batch["row"] = torch.tensor([item.row for item in items])
    return batch


def collate_images(items: Sequence[ImageItem], pad_id: int = 0, pad_multiple: int = 1) -> Batch:
    """Put images into one batch; the two numbers of padding have no use.

    Returns:
        ``pixel_values`` (B, channels, height, width) float32, ``labels`` (B,) float64, ``row`` (B,), and
        ``num_tokens``, the number of images, which costs count.

    Raises:
        UserError: The images have different shapes.
    """
    first = items[0]
    other = next((item for item in items if item.pixels.shape != first.pixels.shape), None)
    if other is not None:
        shapes = [f"row {item.row + 1} has pixels of the shape {item.pixels.shape}" for item in (first, other)]
        raise UserError(
            f"{' and '.join(shapes)}: the image processor of the model does not resize, so save images of one size, or "
            "set do_resize and size in its preprocessor_config.json"
        )
    return {
        "pixel_values": torch.from_numpy(np.stack([item.pixels for item in items])),
        "labels": torch.tensor([item.label for item in items], dtype=torch.float64),
        "row": torch.tensor([item.row for item in items]),
        "num_tokens": torch.tensor(len(items)),
    }


def collate_replies(items: Sequence[ReplyItem], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Make a batch of items with their gold responses, and with their prompts alone for generation.

    Returns:
        The result of ``pad_rows`` for prompt + response, ``row`` (B,), and lists with B entries: ``prompt`` (token ids,
        not padded), ``response`` and ``answer`` (texts).
    """
    batch = pad_rows([item.row for item in items], pad_id, pad_multiple)
    batch["row"] = torch.tensor([item.index for item in items])
    batch["prompt"] = [list(item.prompt) for item in items]
    batch["response"] = [item.response for item in items]
    batch["answer"] = [item.answer for item in items]
    return batch
