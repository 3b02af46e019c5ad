"""Packing: several short training rows in one sequence, each blind to the others, so that little of a batch is padding.

A packed batch carries position ids that start from 0 in each row, and no attention mask. From that, and only without
a mask and without a cache of keys and values, transformers itself makes the block-diagonal causal mask that each
attention kernel wants: boolean for ``sdpa``, additive for ``eager``, with the window of layers that slide. A mask made
here would have to know the kernel (``eager`` adds a boolean one as numbers, without an error) and the dtype.

That is right for decoders that take ``position_ids`` and hand them to transformers' ``create_causal_mask``: Llama
(SmolLM2), Mistral, Qwen2, Qwen3, Gemma, Phi, GPT-2, GPT-NeoX and most others of version 5.23. It is wrong for OPT and
Falcon (whose mask does not look at the positions), ALiBi (BLOOM, MPT), recurrent layers (Mamba), virtual tokens (prompt
and prefix tuning), and flash attention with more than one sequence a batch. ``check_packing`` tells by a trial on the
model itself.
"""

from __future__ import annotations

import bisect
import inspect
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import Batch, pad_rows
from smoa_lightning.data.encoding.encode import IGNORED, TokenRow
from smoa_lightning.evaluation.scoring import target_logits


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


def check_packing(model: nn.Module) -> None:
    """Refuse a model in which the rows of a packed sequence would see each other.

    Beside what can be told from the adapter and the signature, two packed sequences of three short rows go through the
    model, and each row alone: what packing changes must be less than a tenth of what plain concatenation changes, or
    lost in rounding. The random state and the training mode stay as they were.

    Args:
        model: A causal language model of transformers, or a peft model around one, on its device.

    Raises:
        UserError: with the reason.
    """
    network: Any = model
    config: Any = getattr(network, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise UserError(
            f"data.packing: {config.peft_type.value} puts virtual tokens before a sequence, so that only the first of"
            " its rows would follow them; set data.packing: false."
        )
    base: Any = network.get_base_model() if hasattr(network, "get_base_model") else network
    name = type(base).__name__
    if "position_ids" not in inspect.signature(base.forward).parameters:
        raise UserError(f"data.packing: {name} takes no position_ids, which packing needs; set data.packing: false.")
    packed, joined, scale, dtype = _trial(model, base.get_input_embeddings().num_embeddings)
    # a few roundings of the outputs' size: below that, no difference means anything
    if not packed <= max(0.1 * joined, 8 * torch.finfo(dtype).eps * scale):
        kernel = base.config._attn_implementation
        other = "" if kernel in ("sdpa", "eager") else ", or model.backbone.attn_implementation: sdpa"
        raise UserError(
            f"data.packing: in {name} with attention {kernel!r} the rows of a packed sequence change each other's"
            f" outputs (by {packed:.1e}; {joined:.1e} without packing's positions); set data.packing: false{other}."
        )


@torch.no_grad()
def _trial(model: nn.Module, vocabulary: int) -> tuple[float, float, float, torch.dtype]:
    """Return the largest change of a row's logits by packing and by concatenation, their size and their dtype."""
    source = random.Random(0)
    device = next(model.parameters()).device

    def row(length: int) -> TokenRow:
        ids = tuple(source.choices(range(vocabulary), k=length))
        return TokenRow(ids, ids)

    def logits(batch: Batch) -> Tensor:
        """Run the model as training does; return (rows, columns, vocabulary), nan where nothing is predicted."""
        inputs = {name: value if value is None else value.to(device) for name, value in batch.items()}
        found, labels = target_logits(model, inputs)
        whole = found.new_full((*labels.shape, found.shape[-1]), float("nan"))
        whole[labels != IGNORED] = found
        return whole

    # a row of one token is told from its neighbours by nothing but a position that does not rise
    packs = [PackedRow((row(5), row(4), row(6))), PackedRow((row(7), row(1), row(4)))]
    whole = [TokenRow(ids, ids) for ids in (sum((row.ids for row in pack.rows), ()) for pack in packs)]
    change_packed, change_joined, scale = 0.0, 0.0, 0.0
    with _evaluating(model):
        packed, joined = logits(collate_packed(packs, pad_id=0)), logits(pad_rows(whole, pad_id=0))
        for line, pack in enumerate(packs):
            start = 0
            for own in pack.rows:
                if len(own) > 1:
                    alone = logits(pad_rows([own], pad_id=0))[0].float()
                    part = slice(start, start + len(alone))
                    change_packed = max(change_packed, float((packed[line, part].float() - alone).abs().max()))
                    change_joined = max(change_joined, float((joined[line, part].float() - alone).abs().max()))
                    scale = max(scale, float(alone.abs().max()))
                start += len(own)
    return change_packed, change_joined, scale, packed.dtype


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and give every module its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
