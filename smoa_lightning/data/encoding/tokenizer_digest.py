"""A digest of everything that decides the token ids of a tokenizer."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoa_lightning.data.rows.arrow_file import key_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of a tokenizer's class, vocabulary, rules, special tokens and chat template.

    The padding and truncation of a fast tokenizer's backend are left out: its last call has set them.
    """
    facts: dict[str, Any] = {
        "class": type(tokenizer).__name__,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "added": {str(number): str(token) for number, token in tokenizer.added_tokens_decoder.items()},
        "template": tokenizer.chat_template,
        "inputs": getattr(tokenizer, "model_input_names", None),  # whether a pair has types
        "split_special_tokens": getattr(tokenizer, "split_special_tokens", None),
    }
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        facts["backend"] = _rules_digest(backend.to_str())
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = tokenizer.save_vocabulary(folder)
            facts["files"] = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if file]
    return key_of(**facts)


@functools.lru_cache(maxsize=2)
def _rules_digest(backend: str) -> str:
    """Return the digest of a fast tokenizer; every part of every task asks for that of the same one."""
    state = json.loads(backend)
    return key_of(**{name: value for name, value in state.items() if name not in ("padding", "truncation")})
