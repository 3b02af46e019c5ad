"""The encoding of one part of a task's rows: read from the cache on disk if it is there, else encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from smoa_lightning.common.atomic_files import cache_folder
from smoa_lightning.common.console import no_bar
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode import bos_prefix
from smoa_lightning.data.encoding.encode_examples import (
    Encoding,
    PartStatistics,
    encode_choices,
    encode_replies,
    encode_training,
)
from smoa_lightning.data.encoding.encode_labels import encode_labelled
from smoa_lightning.data.encoding.item_table import SCHEMAS, ItemTable, Kind, columns_of
from smoa_lightning.data.encoding.render import texts
from smoa_lightning.data.encoding.shots import with_shots
from smoa_lightning.data.encoding.system_text import SharedText
from smoa_lightning.data.encoding.tokenizer_digest import tokenizer_digest
from smoa_lightning.data.rows.arrow_file import code_digest, in_cache, in_scratch_file, key_of
from smoa_lightning.data.rows.arrow_writer import Writer
from smoa_lightning.data.rows.row_table import RowTable
from smoa_lightning.data.tasks import Protocol, Task
from smoa_lightning.data.tasks.base import Labelling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PIECE = 1024  # rows that are encoded at a time
SAMPLE = 4096  # examples in the key: all examples of most data sets, and quickly read


@dataclass(frozen=True)
class EncodingJob:
    """Rows of a part, and how they are encoded. With the tokenizer this decides the encoded items.

    Args:
        task: The task.
        split: The split that holds the rows.
        rows: The rows of the split.
        indices: The rows of the part, as indices into the split.
        protocol: Makes the examples, and scores them unless they are training rows.
        trained: Whether they are training rows.
        how: Length and rendering.
        shots: Solved rows before each prompt.
    """

    task: Task
    split: str
    rows: RowTable
    indices: np.ndarray
    protocol: Protocol
    trained: bool
    how: Encoding
    shots: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """The kind of the encoded items."""
        if isinstance(self.protocol, Labelling):
            return "labels"
        return "training" if self.trained else "replies" if self.protocol.name == "generation" else "choices"

    def run(self, tokenizer: PreTrainedTokenizerBase, cached: bool) -> ItemTable:
        """Return the encoded items; with ``cached`` they are read from the cache on disk if they are there.

        Raises:
            UserError: a row that does not fit (unless skipped).
        """

        def fill(writer: Writer) -> dict[str, Any]:
            return self._encode(tokenizer, writer)

        schema = SCHEMAS[self.kind]
        if not cached:
            return ItemTable(in_scratch_file(schema, fill), self.kind)
        return ItemTable(in_cache(cache_folder("tokens"), self._key(tokenizer), schema, fill), self.kind)

    def _encode(self, tokenizer: PreTrainedTokenizerBase, writer: Writer) -> dict[str, Any]:
        statistics, system = PartStatistics(), SharedText()
        with tqdm(total=len(self.indices), desc="encoding", unit="row", delay=3, leave=False, disable=no_bar()) as bar:
            for start in range(0, len(self.indices), PIECE):
                piece = self.indices[start : start + PIECE].tolist()
                items, found = self._encode_piece(tokenizer, piece, system)
                statistics.extend(found)
                for item in items:
                    writer.add(*columns_of(item))
                bar.update(len(piece))
        return {"statistics": statistics.as_dict(), "system_text": system.text}

    def _encode_piece(
        self, tokenizer: PreTrainedTokenizerBase, piece: list[int], system: SharedText
    ) -> tuple[list[Any], PartStatistics]:
        def place(position: int) -> str:
            return self._place(piece[position])

        examples = list(self._examples(piece))
        if self.kind == "labels":
            return encode_labelled(examples, piece, place, tokenizer, self.how)
        if self.kind == "training":
            for example in examples:
                system.add(example)
            return encode_training(examples, place, tokenizer, self.how)
        encode: Callable[..., tuple[list[Any], PartStatistics]] = (
            encode_replies if self.kind == "replies" else encode_choices
        )
        shown = [with_shots(example, self.shots) for example in examples]
        return encode(shown, piece, place, tokenizer, self.how)

    def _place(self, index: int) -> str:
        return f"{self.task.name} {self.split}, row {index + 1}"

    def _examples(self, indices: list[int]) -> Iterator[Any]:
        """Yield the examples of rows."""
        for number, index in enumerate(indices):
            yield self.protocol.example(self.rows[index])
            if number % 256 == 255:
                self.rows.release()

    def _key(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return a digest of everything that the encoded items depend on.

        The digests of the rows and of the code decide the texts, with two exceptions: a task may be defined outside of
        this package, and a chat template may insert other facts, such as a date. So the key also holds some thousand
        evenly spread texts.
        """
        adds_bos, sample = bool(bos_prefix(tokenizer, self.how.add_bos)), hashlib.sha256()
        spread = np.unique(np.linspace(0, len(self.indices) - 1, min(SAMPLE, len(self.indices)), dtype=np.int64))
        chosen = self.indices[spread].tolist()
        for index, example in zip(chosen, self._examples(chosen), strict=True):
            try:
                rendered = texts(example, tokenizer, True, adds_bos) if self.how.template else None
            except UserError as error:
                raise UserError(f"{self._place(index)}: {error}") from error
            sample.update(f"{example!r} {rendered!r}\n".encode())
        return key_of(
            rows=self.rows.sha256,
            indices=hashlib.sha256(self.indices.astype("<i8").tobytes()).hexdigest(),
            task=[self.task.name, self.task.version, self.protocol.name],
            kind=self.kind,
            sample=sample.hexdigest(),
            shots=self.shots,
            encoding=asdict(self.how),
            tokenizer=tokenizer_digest(tokenizer),
            code=code_digest(),
        )
