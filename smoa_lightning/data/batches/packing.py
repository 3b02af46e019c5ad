"""Packing: several short training rows in one sequence, so that a batch has little padding. No row sees another one.

A packed batch has position ids that start from 0 in each row, and no attention mask. Without a mask and without a cache
of keys and values, transformers makes the block-diagonal causal mask from the positions. It knows the form that each
attention kernel needs: boolean for ``sdpa``, additive for ``eager``, with the window of sliding layers. A mask made
here would have to know kernel and dtype: ``eager`` adds a boolean mask as numbers, without an error.

This is right for decoders that pass ``position_ids`` to transformers' ``create_causal_mask``: Llama (SmolLM2), Mistral,
Qwen2, Qwen3, Gemma, Phi, GPT-2, GPT-NeoX and most others of version 5.23. It is wrong for

* OPT and Falcon, since their mask ignores the positions, and ALiBi (BLOOM, MPT);
* recurrent layers (Mamba) and virtual tokens (prompt and prefix tuning);
* flash attention with more than one sequence in a batch.

``training.packing_check`` tests it with a trial on the model.
"""

from __future__ import annotations

import bisect
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import Batch, filled
from smoa_lightning.data.encoding.items import IGNORED, LazyItems, TokenRow, lengths_of
from smoa_lightning.data.rows.splits import permutation


@dataclass(frozen=True)
class PackedRow:
    """Rows that share one sequence; its length is the sum of their lengths."""

    rows: tuple[TokenRow, ...]

    def __len__(self) -> int:
        return sum(map(len, self.rows))


class PackedRows(LazyItems):
    """Sequences of several rows each.

    Args:
        rows: The rows.
        members: The rows of all sequences, one sequence after the other.
        starts: The start of each sequence, and at the end the number of rows.
        chosen: The sequences in their order.
    """

    def __init__(self, rows: Sequence[TokenRow], members: np.ndarray, starts: np.ndarray, chosen: np.ndarray) -> None:
        self._rows, self._members, self._starts, self._chosen = rows, members, starts, chosen
        tokens = np.append(0, np.cumsum(lengths_of(rows)[members]))[starts]
        self._lengths: np.ndarray = np.diff(tokens)[chosen]

    @property
    def lengths(self) -> np.ndarray:
        """The length of each sequence in tokens, (N,) int64."""
        return self._lengths

    def item(self, number: int) -> PackedRow:
        """Return a sequence by its number."""
        pack = self._chosen[number]
        members = self._members[self._starts[pack] : self._starts[pack + 1]].tolist()
        return PackedRow(tuple(self._rows[row] for row in members))


def pack_rows(rows: Sequence[TokenRow], max_length: int, seed: int) -> PackedRows:
    """Join rows to sequences of at most ``max_length`` tokens. Each row is whole and in exactly one sequence.

    This is best fit decreasing (Johnson 1973): from the longest row to the shortest, each goes where it leaves the
    least room. It needs at most 11/9 of the smallest possible number of sequences. Rows of the same length are
    shuffled, and so are the sequences.

    Raises:
        UserError: a row is longer than ``max_length``.
    """
    source = random.Random(f"packing/{seed}")
    lengths = lengths_of(rows)
    order = permutation(source, len(rows))
    order = order[np.argsort(-lengths[order], kind="stable")]
    if len(order) and lengths[order[0]] > max_length:
        raise UserError(f"a row of {lengths[order[0]]} tokens cannot be packed into sequences of {max_length}.")
    packs = _best_fit(lengths[order], max_length)
    members = order[np.argsort(packs, kind="stable")]
    starts = np.append(0, np.cumsum(np.bincount(packs)))
    return PackedRows(rows, members, starts, permutation(source, len(starts) - 1))


def _best_fit(lengths: np.ndarray, max_length: int) -> np.ndarray:
    """Return the number of the sequence for each length; the lengths are sorted from the longest to the shortest."""
    packs = array("q")
    open_packs: dict[int, array[int]] = {}  # room that is left -> the sequences that have it
    rooms: list[int] = []  # its keys in order
    count = 0
    for length in array("q", lengths.tobytes()):  # Python's numbers, one at a time
        place = bisect.bisect_left(rooms, length)
        if place == len(rooms):
            room, pack = max_length, count
            count += 1
        else:
            room = rooms[place]
            pack = open_packs[room].pop()
            if not open_packs[room]:
                del open_packs[room], rooms[place]
        packs.append(pack)
        left = room - length
        if left not in open_packs:
            open_packs[left] = array("q")
            bisect.insort(rooms, left)
        open_packs[left].append(pack)
    return np.array(packs)


def collate_packed(packs: Sequence[PackedRow], pad_id: int, pad_multiple: int = 1) -> Batch:
    """Pad packed sequences on the right to the longest, rounded up to a multiple.

    Returns:
        * ``input_ids`` (B, T);
        * ``labels`` (B, T), -100 on the padding and on the first token of each row, which would be predicted from the
          row before;
        * ``position_ids`` (B, T), from 0 in each row, and 0 on the padding, so that a pad token sees only itself;
        * ``attention_mask`` None: the model makes it from the positions, see the text of this module;
        * ``num_tokens``, the number of tokens without padding.
    """
    lengths = [len(pack) for pack in packs]
    ids, labels, places = (filled(lengths, fill, pad_multiple) for fill in (pad_id, IGNORED, 0))
    for line, pack in enumerate(packs):
        start = 0
        for row in pack.rows:
            part = slice(start, start + len(row))
            ids[line, part], labels[line, part], places[line, part] = row.ids, row.labels, np.arange(len(row))
            labels[line, start] = IGNORED
            start += len(row)
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(places),
        "attention_mask": None,
        "num_tokens": torch.tensor(sum(lengths)),
    }
