"""Texts and pairs with a label to token ids, with the special tokens and the types of the tokenizer itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from smoa_lightning.backbones.limits import check_ids
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode_examples import Encoding, PartStatistics
from smoa_lightning.data.encoding.items import LabelledItem
from smoa_lightning.data.tasks import LabelledExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_labelled(
    examples: Sequence[LabelledExample],
    indices: Sequence[int],
    place: Callable[[int], str],
    tokenizer: PreTrainedTokenizerBase,
    how: Encoding,
) -> tuple[list[LabelledItem], PartStatistics]:
    """Encode each text or pair, for training or for scoring.

    A text that is too long loses its end; of a pair, always the longer text loses a token (``longest_first`` of
    transformers). A tokenizer that puts nothing between two texts, as those of most decoders, gets a line break there.

    Args:
        examples: The examples.
        indices: Index of each example in its split.
        place: Position in ``examples`` -> the place of the row, for errors.
        tokenizer: The tokenizer.
        how: The length.

    Raises:
        UserError: ``data.max_length`` has no room for a token of each text; a text without a token.
    """
    if not examples:
        return [], PartStatistics()
    pairs = len(examples[0].texts) == 2
    fewest = tokenizer.num_special_tokens_to_add(pair=pairs) + 1 + pairs
    if how.max_length < fewest:
        raise UserError(f"data.max_length is {how.max_length}, but a text with its special tokens needs {fewest}.")
    between = "\n" if pairs and _has_no_separator(tokenizer) else ""
    texts = [[example.texts[0] + between for example in examples]]
    texts += [[example.texts[1] for example in examples]] if pairs else []  # type: ignore[misc]
    whole = _encoded(tokenizer, texts)
    long = [number for number, ids in enumerate(whole["input_ids"]) if len(ids) > how.max_length]
    if long:
        cut = _encoded(tokenizer, [[column[n] for n in long] for column in texts], how.max_length)
        for name, column in whole.items():
            for place_in_cut, number in enumerate(long):
                column[number] = cut[name][place_in_cut]
    items, statistics, cuts = [], PartStatistics(), set(long)
    types = whole.get("token_type_ids") or [()] * len(examples)
    for number, (example, index, ids, own) in enumerate(zip(examples, indices, whole["input_ids"], types, strict=True)):
        if not ids:
            raise UserError(f"{place(number)}: the text has no token.")
        check_ids(ids, how.vocabulary, tokenizer, place(number))
        item = LabelledItem(tuple(ids), tuple(own), float(example.label), index, number in cuts)
        items.append(item)
        statistics.add(item, clean=True)
    statistics.num_rows = len(items)
    return items, statistics


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], length: int | None = None) -> dict[str, Any]:
    """Return the tokens of texts; with a length, a long text loses its end, for every tokenizer."""
    limit = {} if length is None else {"truncation": "longest_first", "max_length": length}
    side, tokenizer.truncation_side = tokenizer.truncation_side, "right"
    try:
        return dict(tokenizer(*texts, return_attention_mask=False, verbose=False, **limit))
    finally:
        tokenizer.truncation_side = side


def _has_no_separator(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokens of a pair are those of its texts and nothing between them."""
    pair = tokenizer("a", "b")["input_ids"]
    return bool(pair == tokenizer("a")["input_ids"] + tokenizer("b", add_special_tokens=False)["input_ids"])
