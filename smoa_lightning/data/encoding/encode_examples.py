"""Examples to encoded rows, with counts of cut prompts, skipped rows and merged tokens."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from smoa_lightning.backbones.limits import check_ids
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode import (
    AddBos,
    OverlongError,
    Pair,
    bos_prefix,
    encode_pairs,
    scoring_row,
    training_row,
)
from smoa_lightning.data.encoding.items import ChoiceItem, LabelledItem, ReplyItem, TokenRow
from smoa_lightning.data.encoding.render import texts
from smoa_lightning.data.tasks import ChoiceExample, ReplyExample, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoding:
    """How examples become tokens. ``TaskDataModule`` explains the fields; ``template`` is its resolved setting."""

    max_length: int = 512
    loss_on: Literal["response", "all"] = "response"
    overlong: Literal["error", "skip"] = "error"
    add_bos: AddBos = "auto"
    template: bool = False
    prompt_length: int | None = None  # most tokens of a prompt before a generated reply
    vocabulary: int | None = None  # rows of the model's embedding; a row with another token is refused


@dataclass
class PartStatistics:
    """Counts over the sequences of a part: one for each training row, one for each choice of a scored item."""

    num_rows: int = 0
    num_skipped: int = 0
    num_truncated: int = 0
    num_prefix_mismatches: int = 0
    target_tokens: int = 0
    lengths: array[int] = field(default_factory=lambda: array("i"), repr=False)

    def add(self, row: TokenRow | LabelledItem, clean: bool) -> None:
        """Count one sequence."""
        self.lengths.append(len(row))
        self.num_truncated += row.truncated
        self.num_prefix_mismatches += not clean
        self.target_tokens += row.num_targets

    def extend(self, other: PartStatistics) -> None:
        """Count the sequences of another piece of the part."""
        for name in ("num_rows", "num_skipped", "num_truncated", "num_prefix_mismatches", "target_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lengths.extend(other.lengths)

    def as_dict(self) -> dict[str, Any]:
        """Return counts, shares of the sequences, and lengths in tokens."""
        count = max(1, len(self.lengths))
        ordered = np.sort(np.frombuffer(self.lengths or array("i", [0]), dtype=np.int32))
        tokens = int(ordered.sum(dtype=np.int64))
        return {
            "rows": self.num_rows,
            "skipped_overlong": self.num_skipped,
            "sequences": len(self.lengths),
            "share_truncated": self.num_truncated / count,
            "prefix_mismatches": self.num_prefix_mismatches,
            "tokens": tokens,
            "target_tokens": self.target_tokens,
            "length_mean": tokens / count,
            "length_median": int(ordered[len(ordered) // 2]),
            "length_max": int(ordered[-1]),
        }


def _target_pairs(
    examples: Sequence[ChoiceExample | ReplyExample],
    place: Callable[[int], str],
    tokenizer: PreTrainedTokenizerBase,
    how: Encoding,
    spare: int,
) -> list[tuple[Pair, bool]]:
    """Encode the gold pair of each example, and return whether turns of its prompt were removed to make it fit.

    Args:
        examples: Items. If an item with turns is too long, its oldest turns are removed, but never the last one.
        place: Position in ``examples`` -> the place of the row, for errors.
        tokenizer: The tokenizer.
        how: Length and rendering.
        spare: Number of tokens that are added to a pair later.

    Raises:
        UserError: the chat template cannot render a conversation; names the row.
    """

    adds_bos = bool(bos_prefix(tokenizer, how.add_bos))

    def plain(number: int) -> tuple[str, str]:
        example = current[number]
        if isinstance(example, ChoiceExample):
            return example.target
        try:
            return texts(example, tokenizer, how.template, adds_bos)
        except UserError as error:
            raise UserError(f"{place(number)}: {error}") from error

    def encoded(some: Sequence[int]) -> list[Pair]:
        return encode_pairs(tokenizer, [plain(number) for number in some], how.add_bos, breaks=choices)

    def is_long(pair: Pair) -> bool:
        prompt = len(pair.prefix) + len(pair.prompt)
        return prompt + len(pair.response) > room or (how.prompt_length is not None and prompt > how.prompt_length)

    choices = bool(examples) and isinstance(examples[0], ChoiceExample)  # a task's examples are all of one kind
    current, cut = list(examples), [False] * len(examples)
    pairs = encoded(range(len(examples)))
    room = how.max_length - spare
    waiting = list(range(len(examples)))
    while waiting:
        shorter = {n: e.shortened() for n in waiting if is_long(pairs[n]) and isinstance(e := current[n], ReplyExample)}
        waiting = [n for n, example in shorter.items() if example is not None]
        for n in waiting:
            current[n], cut[n] = shorter[n], True  # type: ignore[assignment]
        for n, pair in zip(waiting, encoded(waiting), strict=True):
            pairs[n] = pair
    return list(zip(pairs, cut, strict=True))


def encode_training(
    examples: Sequence[ChoiceExample | ReplyExample],
    place: Callable[[int], str],
    tokenizer: PreTrainedTokenizerBase,
    how: Encoding,
) -> tuple[list[TokenRow], PartStatistics]:
    """Encode the right choice or the gold reply of each example for training.

    Args:
        examples: The examples.
        place: Position in ``examples`` -> the place of the row, for errors.
        tokenizer: The tokenizer, with an EOS token.
        how: Length, targets, and whether rows that are too long are skipped.

    Raises:
        UserError: a tokenizer without EOS; a response that does not fit (unless skipped); a response without a token.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no EOS token, so the model cannot learn where a response ends.")
    rows: list[TokenRow] = []
    statistics = PartStatistics()
    for position, (pair, cut) in enumerate(_target_pairs(examples, place, tokenizer, how, spare=1)):
        try:
            _refuse_masked(examples[position], how)
            row = training_row(pair, tokenizer.eos_token_id, how.max_length, how.loss_on)
        except RowError as error:
            _skip_or_raise(error, place(position), how, statistics)
            continue
        check_ids(row.ids, how.vocabulary, tokenizer, place(position))
        row = replace(row, truncated=row.truncated or cut)
        rows.append(row)
        statistics.add(row, pair.clean)
    statistics.num_rows = len(rows)
    return rows, statistics


def _refuse_masked(example: ChoiceExample | ReplyExample, how: Encoding) -> None:
    """Refuse a loss on the whole prompt if the loss must not count a message of it.

    Raises:
        RowError: names the setting.
    """
    if how.loss_on == "all" and isinstance(example, ReplyExample) and example.masked:
        raise RowError(
            "data.loss_on: all would train on a message with weight 0 (or train or loss false); set response"
        )


def encode_replies(
    examples: Sequence[ReplyExample],
    indices: Sequence[int],
    place: Callable[[int], str],
    tokenizer: PreTrainedTokenizerBase,
    how: Encoding,
) -> tuple[list[ReplyItem], PartStatistics]:
    """Encode each example with its gold reply, and its prompt alone; both prompts are cut in the same way.

    Args:
        examples: The examples.
        indices: Index of each example in its split.
        place: Position in ``examples`` -> the place of the row, for errors.
        tokenizer: The tokenizer.
        how: Length, rendering, and whether gold replies that are too long are skipped.

    Raises:
        UserError: a gold reply that does not fit (unless skipped) or has no token.
    """
    items: list[ReplyItem] = []
    statistics = PartStatistics()
    pairs = _target_pairs(examples, place, tokenizer, how, spare=0)
    for position, (example, index, (pair, cut)) in enumerate(zip(examples, indices, pairs, strict=True)):
        try:
            row = scoring_row(pair, how.max_length, how.prompt_length)
        except RowError as error:
            _skip_or_raise(error, place(position), how, statistics)
            continue
        check_ids(row.ids, how.vocabulary, tokenizer, place(position))
        row = replace(row, truncated=row.truncated or cut)
        prompt = row.ids[: len(row) - len(pair.response)]
        items.append(ReplyItem(row, prompt, index, example.reference, example.answer))
        statistics.add(row, pair.clean)
    statistics.num_rows = len(items)
    return items, statistics


def encode_choices(
    examples: Sequence[ChoiceExample],
    indices: Sequence[int],
    place: Callable[[int], str],
    tokenizer: PreTrainedTokenizerBase,
    how: Encoding,
) -> tuple[list[ChoiceItem], PartStatistics]:
    """Encode all choices of each example for scoring.

    Args:
        examples: The examples.
        indices: Index of each example in its split.
        place: Position in ``examples`` -> the place of the row, for errors.
        tokenizer: The tokenizer.
        how: Length, and whether items with a choice that is too long are skipped.

    Raises:
        UserError: a choice that does not fit (unless its item is skipped); a choice without a token.
    """
    items: list[ChoiceItem] = []
    statistics = PartStatistics()
    pairs = iter(encode_pairs(tokenizer, [pair for example in examples for pair in example.pairs], how.add_bos))
    for position, (example, index) in enumerate(zip(examples, indices, strict=True)):
        own = [next(pairs) for _ in example.choices]
        try:
            rows = tuple(scoring_row(pair, how.max_length) for pair in own)
        except RowError as error:
            _skip_or_raise(error, place(position), how, statistics)
            continue
        check_ids((token for row in rows for token in row.ids), how.vocabulary, tokenizer, place(position))
        items.append(ChoiceItem(rows, tuple(example.num_bytes), example.label, index))
        for row, pair in zip(rows, own, strict=True):
            statistics.add(row, pair.clean)
    statistics.num_rows = len(items)
    return items, statistics


def _skip_or_raise(error: RowError, place: str, how: Encoding, statistics: PartStatistics) -> None:
    if not isinstance(error, OverlongError):
        raise UserError(f"{place}: {error}.") from None
    if how.overlong == "error":
        raise UserError(f"{place}: {error}; raise data.max_length or set data.overlong: skip.") from None
    statistics.num_skipped += 1
