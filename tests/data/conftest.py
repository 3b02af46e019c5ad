"""Toy tokenizers whose every id can be worked out by hand."""

from __future__ import annotations

import string

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<bos>", "<eos>"]
CHARACTERS = [*string.ascii_lowercase, *string.ascii_uppercase, *string.digits, *" .,:?!'\n-"]


def character_tokenizer(pad: str = "<pad>", adds_bos: bool = False, with_bos: bool = True) -> PreTrainedTokenizerFast:
    """One token a character: ids of SPECIAL first, then CHARACTERS in their order."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *CHARACTERS, "<unk>"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    bos = {"bos_token": "<bos>"} if with_bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token=pad, **bos)


def character_ids(text: str) -> list[int]:
    return [len(SPECIAL) + CHARACTERS.index(character) for character in text]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer()


@pytest.fixture
def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE without pre-tokenizer that merges "b" with a following "c", and "x" with a following "y"."""
    vocabulary = {token: index for index, token in enumerate(["<eos>", "a", "b", "c", "bc", "x", "y", "xy", " "])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("b", "c"), ("x", "y")]))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")


@pytest.fixture
def rows() -> list[dict]:
    """Sixty PIQA rows over twenty goals."""
    return [
        {"goal": f"goal number {i % 20}", "sol1": "use " + "a" * (i % 7 + 1), "sol2": f"use {i}", "label": i % 2}
        for i in range(60)
    ]
