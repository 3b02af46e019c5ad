"""Whether a model keeps the rows of a packed sequence apart: told by a trial on the model itself."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import Batch, pad_rows
from smoa_lightning.data.batches.packing import PackedRow, collate_packed
from smoa_lightning.data.encoding.items import IGNORED, TokenRow
from smoa_lightning.evaluation.scoring import target_logits


def check_packing(model: nn.Module) -> None:
    """Refuse a model in which the rows of a packed sequence would see each other.

    Beside what can be told from the adapter and the signature, two packed sequences of three short rows go through the
    model, and each row alone: what packing changes must be less than a tenth of what plain concatenation changes, or
    lost in rounding. The random state and the training mode stay as they were.

    Args:
        model: A causal language model of transformers, or a peft model around one, on its device.

    Raises:
        UserError: with the reason.
    """
    network: Any = model
    config: Any = getattr(network, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise UserError(
            f"data.packing: {config.peft_type.value} puts virtual tokens before a sequence, so that only the first of"
            " its rows would follow them; set data.packing: false."
        )
    base: Any = network.get_base_model() if hasattr(network, "get_base_model") else network
    name = type(base).__name__
    if "position_ids" not in inspect.signature(base.forward).parameters:
        raise UserError(f"data.packing: {name} takes no position_ids, which packing needs; set data.packing: false.")
    packed, joined, scale, dtype = _trial(model, base.get_input_embeddings().num_embeddings)
    # a few roundings of the outputs' size: below that, no difference means anything
    if not packed <= max(0.1 * joined, 8 * torch.finfo(dtype).eps * scale):
        kernel = base.config._attn_implementation
        other = "" if kernel in ("sdpa", "eager") else ", or model.backbone.attn_implementation: sdpa"
        raise UserError(
            f"data.packing: in {name} with attention {kernel!r} the rows of a packed sequence change each other's"
            f" outputs (by {packed:.1e}; {joined:.1e} without packing's positions); set data.packing: false{other}."
        )


@torch.no_grad()
def _trial(model: nn.Module, vocabulary: int) -> tuple[float, float, float, torch.dtype]:
    """Return the largest change of a row's logits by packing and by concatenation, their size and their dtype."""
    source = random.Random(0)
    device = next(model.parameters()).device

    def row(length: int) -> TokenRow:
        ids = tuple(source.choices(range(vocabulary), k=length))
        return TokenRow(ids, ids)

    def logits(batch: Batch) -> Tensor:
        """Run the model as training does; return (rows, columns, vocabulary), nan where nothing is predicted."""
        inputs = {name: value if value is None else value.to(device) for name, value in batch.items()}
        found, labels = target_logits(model, inputs)
        whole = found.new_full((*labels.shape, found.shape[-1]), float("nan"))
        whole[labels != IGNORED] = found
        return whole

    # a row of one token is told from its neighbours by nothing but a position that does not rise
    packs = [PackedRow((row(5), row(4), row(6))), PackedRow((row(7), row(1), row(4)))]
    whole = [TokenRow(ids, ids) for ids in (sum((row.ids for row in pack.rows), ()) for pack in packs)]
    change_packed, change_joined, scale = 0.0, 0.0, 0.0
    with _evaluating(model):
        packed, joined = logits(collate_packed(packs, pad_id=0)), logits(pad_rows(whole, pad_id=0))
        for line, pack in enumerate(packs):
            start = 0
            for own in pack.rows:
                if len(own) > 1:
                    alone = logits(pad_rows([own], pad_id=0))[0].float()
                    part = slice(start, start + len(alone))
                    change_packed = max(change_packed, float((packed[line, part].float() - alone).abs().max()))
                    change_joined = max(change_joined, float((joined[line, part].float() - alone).abs().max()))
                    scale = max(scale, float(alone.abs().max()))
                start += len(own)
    return change_packed, change_joined, scale, packed.dtype


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and give every module its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
