"""Encoded items: a training row, an item with scored choices, with a generated reply, or with a label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoa_lightning.data.rows.lazy_sequence import LazySequence

IGNORED = -100  # label of a token that is not a target: torch's default ``ignore_index``


@dataclass(frozen=True)
class TokenRow:
    """Token ids and their labels, equally long; ``labels[i]`` is ``ids[i]`` if that token is a target, else -100."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_targets(self) -> int:
        """How many tokens are predicted; the first token of a sequence never is."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class ChoiceItem:
    """An encoded item of a choice task.

    Args:
        rows: One token row for each choice.
        num_bytes: UTF-8 bytes of each choice.
        label: Index of the right choice.
        row: Index of the item in its split.
    """

    rows: tuple[TokenRow, ...]
    num_bytes: tuple[int, ...]
    label: int
    row: int

    def __len__(self) -> int:
        return max(map(len, self.rows))


@dataclass(frozen=True)
class ReplyItem:
    """An encoded item with a reply that the model generates.

    Args:
        row: Prompt and gold response, for its likelihood. The targets are the tokens of the response without EOS.
        prompt: Tokens of the prompt alone, with BOS if there is one. The model generates the reply after them.
        index: Index of the item in its split.
        response: The gold response as a text.
        answer: The right answer, or None.
    """

    row: TokenRow
    prompt: tuple[int, ...]
    index: int
    response: str
    answer: str | None

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class LabelledItem:
    """An encoded text or pair with a label, for training and for scoring.

    Args:
        ids: Token ids with the special tokens of the tokenizer.
        types: 0 for the first text and 1 for the second one, for each token; empty if the model takes no types.
        label: Number of the class, or a number.
        row: Index of the item in its split.
        truncated: Whether the texts were cut.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]
    label: float
    row: int
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_targets(self) -> int:
        """How many targets the loss counts."""
        return 1


@dataclass(frozen=True)
class ImageItem:
    """An image with its class, for training and for scoring.

    Args:
        pixels: Pixels as the model reads them, (channels, height, width) float32.
        label: Number of the class.
        row: Index of the item in its split.
    """

    pixels: np.ndarray
    label: int
    row: int

    def __len__(self) -> int:
        return 1


class LazyItems(LazySequence[Any]):
    """Encoded items, each made on access."""

    @property
    @abstractmethod
    def lengths(self) -> np.ndarray:
        """The length of each item in tokens, for a choice item the length of its longest row, (N,)."""

    @property
    def num_rows(self) -> np.ndarray:
        """How many token rows each item has, (N,) int64."""
        return np.ones(len(self), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lengths)


def lengths_of(items: Sequence[Any]) -> np.ndarray:
    """Return the length of each item in tokens, (N,) int64."""
    if isinstance(items, LazyItems):
        return items.lengths.astype(np.int64)
    return np.array([len(item) for item in items], dtype=np.int64)


def num_rows_of(items: Sequence[Any]) -> np.ndarray:
    """Return how many token rows each item has, (N,) int64: a choice item has one for each choice."""
    if isinstance(items, LazyItems):
        return items.num_rows
    return np.array([len(item.rows) if isinstance(item, ChoiceItem) else 1 for item in items], dtype=np.int64)
