"""Continue prompts with a trained adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smoa_lightning.adapters.virtual_tokens import limits_with
from smoa_lightning.backbones.limits import check_ids, limits_of_architecture
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode import AddBos, bos_prefix, encode_pairs
from smoa_lightning.data.encoding.render import end_ids, texts
from smoa_lightning.data.tasks import ReplyExample
from smoa_lightning.evaluation.decoding import continuations
from smoa_lightning.records.record import ADAPTER_FACTS
from smoa_lightning.training.adapter_folder import adapter_folder, load_adapter


def generate(
    run: str | Path, prompts: list[str], max_new_tokens: int = 64, num_beams: int = 1, backbone: str | None = None
) -> list[str]:
    """Return the continuation of each prompt by the best adapter of a run, or by the adapter of a folder.

    Prompts are tokenised as in training. Blanks at the end of a prompt are dropped, since they belong to the response.
    If the adapter was trained with the tokenizer's chat template, a prompt is one user message.

    Args:
        run: A run folder or an adapter folder.
        prompts: Texts to continue.
        max_new_tokens: Largest number of tokens in a continuation.
        num_beams: Width of the beam search; 1 is greedy.
        backbone: Folder of the backbone, if it has moved since training.

    Raises:
        UserError: The folder holds no adapter; a prompt and its continuation do not fit into the model's context, or a
            prompt has a token that the embedding lacks.
    """
    model, tokenizer = load_adapter(run, backbone)
    facts = json.loads((adapter_folder(run) / ADAPTER_FACTS).read_text(encoding="utf-8"))
    add_bos: AddBos = facts.get("add_bos", "auto")
    template: bool = facts.get("chat_template", False)
    adds_bos = bool(bos_prefix(tokenizer, add_bos))
    pairs = [(texts(ReplyExample("", (text,), ""), tokenizer, template, adds_bos)[0], "") for text in prompts]
    rows = [pair.prefix + pair.prompt for pair in encode_pairs(tokenizer, pairs, add_bos, breaks=False)]
    _check_prompts(rows, max_new_tokens, model, tokenizer)
    ends = end_ids(tokenizer, template)
    continued = continuations(model, rows, tokenizer.pad_token_id, ends, max_new_tokens, num_beams)
    return [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in continued]


def _check_prompts(rows: list[tuple[int, ...]], new: int, model: Any, tokenizer: Any) -> None:
    """Refuse a prompt that the model cannot be fed together with its continuation."""
    limits = limits_with(getattr(model, "active_peft_config", None), limits_of_architecture(model.config))
    for number, row in enumerate(rows, start=1):
        check_ids(row, limits.vocabulary, tokenizer, f"prompt {number}")
        if limits.context is not None and len(row) + new > limits.context:
            room = limits.context - len(row)
            remedy = f"ask for at most {room} new tokens" if room > 0 else "shorten the prompt"
            raise UserError(
                f"prompt {number} has {len(row)} tokens, and with {new} new tokens it does not fit into the context of "
                f"{limits.describe()}: {remedy}"
            )
