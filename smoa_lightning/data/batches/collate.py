"""How encoded items become batches: right padding, the choices of an item side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from smoa_lightning.data.encoding.items import IGNORED, ChoiceItem, ReplyItem, TokenRow

Batch = dict[str, Any]


def pad_rows(rows: Sequence[TokenRow], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Pad rows on the right to the longest, rounded up to a multiple.

    Returns:
        ``input_ids`` (B, T), ``attention_mask`` (B, T) with 1 on the row's own tokens, ``labels`` (B, T) with -100 on
        the padding: by length, so that a pad token equal to EOS hides no EOS.
    """
    length = max(map(len, rows))
    length = math.ceil(length / pad_multiple) * pad_multiple

    def matrix(lists: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*values, *(fill,) * (length - len(values))] for values in lists], dtype=torch.long)

    return {
        "input_ids": matrix([row.ids for row in rows], pad_id),
        "attention_mask": matrix([(1,) * len(row) for row in rows], 0),
        "labels": matrix([row.labels for row in rows], IGNORED),
    }


def collate_choices(items: Sequence[ChoiceItem], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Put all choices of all items into one batch of R = sum(num_choices) rows, those of one item consecutive.

    Returns:
        What ``pad_rows`` gives for the R rows, ``num_bytes`` (R,), and for the I items ``num_choices``, ``label`` and
        ``row``, (I,) each.
    """
    batch = pad_rows([row for item in items for row in item.rows], pad_id, pad_multiple)
    batch["num_bytes"] = torch.tensor([count for item in items for count in item.num_bytes])
    batch["num_choices"] = torch.tensor([len(item.rows) for item in items])
    batch["label"] = torch.tensor([item.label for item in items])
    batch["row"] = torch.tensor([item.row for item in items])
    return batch


def collate_replies(items: Sequence[ReplyItem], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Put items side by side, once with their gold responses and once as prompts to go on from.

    Returns:
        What ``pad_rows`` gives for prompt + response, ``row`` (B,), and lists of B: ``prompt`` (token ids, not padded),
        ``response`` and ``answer`` (texts).
    """
    batch = pad_rows([item.row for item in items], pad_id, pad_multiple)
    batch["row"] = torch.tensor([item.index for item in items])
    batch["prompt"] = [list(item.prompt) for item in items]
    batch["response"] = [item.response for item in items]
    batch["answer"] = [item.answer for item in items]
    return batch
