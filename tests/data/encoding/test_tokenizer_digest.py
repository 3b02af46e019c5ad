"""A tokenizer is known by what decides its ids."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from smoa_lightning.data.encoding.tokenizer_digest import tokenizer_digest

from ..conftest import character_tokenizer


def reloaded(tokenizer: PreTrainedTokenizerFast, folder: Path) -> PreTrainedTokenizerFast:
    tokenizer.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def test_the_tokenizer_digest_depends_on_what_decides_the_ids(tmp_path: Path) -> None:
    digest = tokenizer_digest
    own = digest(character_tokenizer())
    assert own == digest(character_tokenizer())
    assert digest(reloaded(character_tokenizer(), tmp_path)) == digest(reloaded(character_tokenizer(), tmp_path))
    used = character_tokenizer()
    used(["abc", "d"], padding=True, truncation=True, max_length=2)
    assert digest(used) == own
    others = [
        character_tokenizer(adds_bos=True),
        character_tokenizer(with_bos=False),
        character_tokenizer(pad="<eos>"),
        character_tokenizer(),
        character_tokenizer(),
        character_tokenizer(),
    ]
    others[3].add_tokens(["ab"])
    others[4].chat_template = "{{ messages }}"
    state = json.loads(others[5].backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    others[5] = copy.deepcopy(others[5])
    others[5]._tokenizer = others[5].backend_tokenizer.from_str(json.dumps(state))
    assert others[5]("ab").input_ids == character_tokenizer()("ba").input_ids
    assert len({own, *map(digest, others)}) == len(others) + 1


def test_a_tokenizer_in_python_has_a_digest() -> None:
    assert tokenizer_digest(ByT5Tokenizer()) == tokenizer_digest(ByT5Tokenizer())
    assert tokenizer_digest(ByT5Tokenizer()) != tokenizer_digest(ByT5Tokenizer(extra_ids=7))
