"""Packing: several short training rows in one sequence, each blind to the others, so that little of a batch is padding.

A packed batch carries position ids that start from 0 in each row, and no attention mask. From that, and only without
a mask and without a cache of keys and values, transformers itself makes the block-diagonal causal mask that each
attention kernel wants: boolean for ``sdpa``, additive for ``eager``, with the window of layers that slide. A mask made
here would have to know the kernel (``eager`` adds a boolean one as numbers, without an error) and the dtype.

That is right for decoders that take ``position_ids`` and hand them to transformers' ``create_causal_mask``: Llama
(SmolLM2), Mistral, Qwen2, Qwen3, Gemma, Phi, GPT-2, GPT-NeoX and most others of version 5.23. It is wrong for OPT and
Falcon (whose mask does not look at the positions), ALiBi (BLOOM, MPT), recurrent layers (Mamba), virtual tokens (prompt
and prefix tuning), and flash attention with more than one sequence a batch. ``training.packing_check`` tells by a
trial on the model itself.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import Batch
from smoa_lightning.data.encoding.encode import IGNORED, TokenRow


@dataclass(frozen=True)
class PackedRow:
    """Rows that share one sequence; its length is the sum of theirs."""

    rows: tuple[TokenRow, ...]

    def __len__(self) -> int:
        return sum(map(len, self.rows))


def pack_rows(rows: Sequence[TokenRow], max_length: int, seed: int) -> list[PackedRow]:
    """Put rows together into sequences of at most ``max_length`` tokens: each row in exactly one of them, uncut.

    Best fit decreasing (Johnson 1973), at most 11/9 of the fewest sequences possible: from the longest row to the
    shortest, each goes where it leaves the least room. Rows of one length are shuffled, and so are the sequences.

    Raises:
        UserError: a row is longer than ``max_length``.
    """
    source = random.Random(f"packing/{seed}")
    order = list(range(len(rows)))
    source.shuffle(order)
    order.sort(key=lambda row: -len(rows[row]))
    if order and len(rows[order[0]]) > max_length:
        raise UserError(f"a row of {len(rows[order[0]])} tokens can not be packed into sequences of {max_length}.")
    packs: list[list[int]] = []
    open_packs: dict[int, list[int]] = {}  # room that is left -> the packs that have it
    rooms: list[int] = []  # its keys in order
    for row in order:
        place = bisect.bisect_left(rooms, len(rows[row]))
        if place == len(rooms):
            room, pack = max_length, len(packs)
            packs.append([])
        else:
            room = rooms[place]
            pack = open_packs[room].pop()
            if not open_packs[room]:
                del open_packs[room], rooms[place]
        packs[pack].append(row)
        left = room - len(rows[row])
        if left not in open_packs:
            open_packs[left] = []
            bisect.insort(rooms, left)
        open_packs[left].append(pack)
    source.shuffle(packs)
    return [PackedRow(tuple(rows[row] for row in pack)) for pack in packs]


def collate_packed(packs: Sequence[PackedRow], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Pad packed sequences on the right to the longest, rounded up to a multiple.

    Returns:
        ``input_ids`` (B, T); ``labels`` (B, T), -100 on the padding and on each row's first token, which would be
        predicted from the row before; ``position_ids`` (B, T), from 0 in each row, 0 on the padding, where each token
        sees itself alone; ``attention_mask`` None: the model makes it from the positions, see this module's text;
        ``num_tokens``, the tokens that are no padding.
    """
    length = math.ceil(max(map(len, packs)) / pad_multiple) * pad_multiple

    def matrix(lists: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*values, *(fill,) * (length - len(values))] for values in lists], dtype=torch.long)

    return {
        "input_ids": matrix([[token for row in pack.rows for token in row.ids] for pack in packs], pad_id),
        "labels": matrix(
            [[label for row in pack.rows for label in (IGNORED, *row.labels[1:])] for pack in packs], IGNORED
        ),
        "position_ids": matrix([[place for row in pack.rows for place in range(len(row))] for pack in packs], 0),
        "attention_mask": None,
        "num_tokens": torch.tensor(sum(map(len, packs))),
    }
