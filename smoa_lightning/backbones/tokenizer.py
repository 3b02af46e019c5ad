"""The tokenizer of a backbone, with an EOS token and a pad token that the embedding has."""

from __future__ import annotations

import copy
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from smoa_lightning.backbones.backbone import Location, content, limits, reading_errors
from smoa_lightning.backbones.limits import check_ids
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.process_cache import cached

FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "*bpe*", "merges.txt", "tekken.json")


def load_tokenizer(location: Location) -> PreTrainedTokenizerBase:
    """Load the tokenizer and set its pad token; inside ``process_cache``, copy the cached tokenizer.

    A model pads with its EOS token if it has no pad token, or if its embedding has no row for it. This does not change
    the loss: targets are masked by length and not by token id, so that a real EOS stays a target.

    Raises:
        UserError: There is no tokenizer, it has no EOS token (with a new head: no pad token either), or the
            embedding of the model has no row for that token.
    """
    return copy.deepcopy(cached("tokenizer", content(location), lambda: _read(location)))


def _read(location: Location) -> PreTrainedTokenizerBase:
    vocabulary = limits(location).vocabulary
    tokenizer = None
    if location.source == "hub" or any(path for name in FILES for path in Path(location.name).glob(name)):
        with reading_errors(location):
            tokenizer = AutoTokenizer.from_pretrained(**location.reading())
    with reading_errors(location):
        useless = tokenizer is None or _knows_no_word(tokenizer)
    if tokenizer is None or useless:
        raise UserError(
            f"the backbone {location.name!r} has no tokenizer: copy the tokenizer files of the model into its folder, "
            "such as tokenizer.json and tokenizer_config.json"
        )
    pad = tokenizer.pad_token_id
    if tokenizer.eos_token_id is None:
        if location.head.is_new and pad is not None:
            return tokenizer  # an encoder writes no response
        raise UserError(f"the tokenizer of {location.name!r} has no EOS token, so a response could never end")
    check_ids([tokenizer.eos_token_id], vocabulary, tokenizer, f"the tokenizer of {location.name!r}")
    if pad is None or (vocabulary is not None and pad >= vocabulary):
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _knows_no_word(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a text has no token of its own: without files, transformers makes a tokenizer of special tokens only."""
    if len(tokenizer) > 100:
        return False
    ids = tokenizer("The answer: 1", add_special_tokens=False)["input_ids"]
    return not set(ids) - set(tokenizer.all_special_ids)
