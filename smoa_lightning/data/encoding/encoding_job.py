"""What a part of a task's rows is encoded from, and its encoding: from the cache on disk, or anew."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from smoa_lightning.common.atomic_files import cache_folder
from smoa_lightning.data.encoding import cache
from smoa_lightning.data.encoding.encode import ENCODING_VERSION, bos_prefix
from smoa_lightning.data.encoding.encode_examples import (
    Encoding,
    PartStatistics,
    encode_choices,
    encode_replies,
    encode_training,
)
from smoa_lightning.data.encoding.render import texts
from smoa_lightning.data.encoding.shots import with_shots
from smoa_lightning.data.tasks.base import ProtocolName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PartItems:
    """Examples of a part, and how they are encoded: all that decides the encoded rows beside the tokenizer.

    Args:
        name: Task and split, for errors.
        protocol: The protocol under which the items are scored; None: they are trained on.
        indices: Index of each example in its split.
        examples: The examples, without few-shot prompt.
        how: Length and rendering.
        shots: Solved rows before each prompt.
    """

    name: str
    protocol: ProtocolName | None
    indices: Sequence[int]
    examples: Sequence[Any]  # ChoiceExample or ReplyExample, all of one kind
    how: Encoding
    shots: tuple[str, ...] = ()

    def encoded(self, tokenizer: PreTrainedTokenizerBase, cached: bool) -> tuple[list[Any], PartStatistics]:
        """Return the encoded rows, with ``cached`` those that an earlier call has left in the cache on disk.

        Raises:
            UserError: a row that does not fit (unless skipped).
        """
        if not cached:
            return self._encode(tokenizer)
        folder, key = cache_folder("tokens"), self._key(tokenizer)
        made = cache.load(folder, key)
        if made is None:
            made = self._encode(tokenizer)
            cache.save(folder, key, *made)
        return made

    def _encode(self, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Any], PartStatistics]:
        def place(position: int) -> str:
            return f"{self.name}, row {self.indices[position] + 1}"

        if self.protocol is None:
            return encode_training(self.examples, place, tokenizer, self.how)
        examples = [with_shots(example, self.shots) for example in self.examples]
        encode: Any = encode_replies if self.protocol == "generation" else encode_choices
        return encode(examples, self.indices, place, tokenizer, self.how)

    def _key(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return a digest of everything that the encoded rows depend on: the texts themselves, not what made them."""
        digest = hashlib.sha256()
        adds_bos = bool(bos_prefix(tokenizer, self.how.add_bos))
        for index, example in zip(self.indices, self.examples, strict=True):
            # the texts of a template may hold more than its examples, such as a date
            rendered = texts(example, tokenizer, True, adds_bos) if self.how.template else None
            digest.update(f"{index} {example!r} {rendered!r}\n".encode())
        return cache.cache_key(
            rule=ENCODING_VERSION,
            part="train" if self.protocol is None else "scored",
            examples=digest.hexdigest(),
            shots=self.shots,
            encoding=asdict(self.how),
            tokenizer=cache.tokenizer_digest(tokenizer),
        )
