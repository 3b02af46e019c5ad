"""Check of ``trainable_token_indices`` and ``token_indices`` against the embeddings that they index."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig
from torch import nn

from smoa_lightning.common.errors import UserError


def check_token_indices(model: nn.Module, config: PeftConfig) -> None:
    """Refuse indices of tokens that an embedding does not have.

    Raises:
        UserError: The message names the first such index and the valid range.
    """
    for setting in ("trainable_token_indices", "token_indices"):
        given: Any = getattr(config, setting, None)
        for name, indices in given.items() if isinstance(given, dict) else [(None, given or [])]:
            rows = _rows(model, name) if indices else 0
            wrong = [index for index in indices if not isinstance(index, int) or (rows and not 0 <= index < rows)]
            if wrong:
                last = f" from 0 to {rows - 1}" if rows else ""
                raise UserError(f"{setting} has the token {wrong[0]!r}, but must have whole numbers{last}")


def _rows(model: nn.Module, name: str | None) -> int:
    """Return the number of rows of the input embedding, or of the named layer; 0 if it is unknown."""
    if name is None:
        layers = [getattr(model, "get_input_embeddings", lambda: None)()]
    else:
        layers = [m for n, m in model.named_modules() if n == name or n.endswith(f".{name}")]
    sizes = [int(w.shape[0]) for w in (getattr(layer, "weight", None) for layer in layers) if w is not None]
    return min(sizes, default=0)
