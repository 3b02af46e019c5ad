"""What a model can be fed: how many tokens in a sequence, and which token ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smoa_lightning.common.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# names of the largest number of positions in the configs of transformers; others, such as Mamba, have no limit
POSITIONS = ("max_position_embeddings", "max_seq_len")
# architectures whose first token has the position after the padding's id: RoBERTa has 514 positions for 512 tokens
AFTER_PADDING = ("camembert", "data2vec-text", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta")


@dataclass(frozen=True)
class Limits:
    """The limits of a backbone with its adapter.

    Attributes:
        positions: Largest number of positions, None without such a limit.
        vocabulary: Number of rows of the embedding, None if the config does not have it.
        virtual_tokens: Positions that the adapter takes: virtual tokens come before each sequence.
    """

    positions: int | None = None
    vocabulary: int | None = None
    virtual_tokens: int = 0

    @property
    def context(self) -> int | None:
        """The largest number of tokens in a sequence: positions - virtual tokens; None without a limit."""
        return None if self.positions is None else self.positions - self.virtual_tokens

    def describe(self) -> str:
        """Return the context and where it comes from, for messages.

        >>> Limits(128, virtual_tokens=20).describe()
        '108 tokens (128 positions less 20 virtual tokens)'
        """
        less = f" (the model has {self.positions} positions)"
        if self.virtual_tokens:
            less = f" ({self.positions} positions less {self.virtual_tokens} virtual tokens)"
        return f"{self.context} tokens{less}"


def limits_of_architecture(architecture: PretrainedConfig) -> Limits:
    """Return the limits of a model without an adapter, from its config."""
    settings: Any = architecture.get_text_config()
    given = (getattr(settings, name, None) for name in POSITIONS)
    positions = next((value for value in given if value is not None and value > 0), None)  # -1: no limit
    if positions is not None and settings.model_type in AFTER_PADDING:
        positions -= settings.pad_token_id + 1
    return Limits(positions, getattr(settings, "vocab_size", None))


def check_ids(ids: Iterable[int], vocabulary: int | None, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Refuse a token that the embedding lacks: an added token of a tokenizer that does not belong to the model.

    Args:
        ids: Token ids.
        vocabulary: Number of rows of the embedding, None to accept all.
        tokenizer: The tokenizer, for the text of the token.
        where: The row, prompt or document, for the message.

    Raises:
        UserError: The message has the token.
    """
    if vocabulary is None:
        return
    largest = max(ids, default=0)
    if largest >= vocabulary:
        raise UserError(
            f"{where}: the token {tokenizer.convert_ids_to_tokens(largest)!r} has id {largest}, but the embedding of "
            f"the model has only {vocabulary} rows (ids up to {vocabulary - 1}): use the tokenizer of the model, or "
            "remove the token from the text"
        )
