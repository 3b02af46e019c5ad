"""A trial that checks whether a model separates the rows of a packed sequence."""

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
from smoa_lightning.evaluation.prefix_trees import KERNELS
from smoa_lightning.evaluation.scoring import target_logits


def check_no_virtual_tokens(config: Any, where: str = "") -> None:
    """Refuse a prompt method.

    Args:
        config: The configuration of an adapter; None without one.
        where: What has the adapter, for the message.

    Raises:
        UserError: The method puts virtual tokens before a sequence.
    """
    if getattr(config, "is_prompt_learning", False):
        raise UserError(
            f"{where}data.packing: {config.peft_type.value} puts virtual tokens before a sequence, so only the first"
            " packed row would follow them; set data.packing: false."
        )


def check_packing(model: nn.Module) -> None:
    """Refuse a model in which the rows of a packed sequence affect each other.

    The adapter and the signature are checked first. Then the model computes two packed sequences of three short rows,
    and each row alone. Packing must not change the outputs by more than rounding. Half-precision rounding can hide a
    small dependence, so models that transformers marks as recurrent are refused without a trial. Random state and
    training mode do not change.

    Args:
        model: A causal language model of transformers, or a peft model around one, on its device.

    Raises:
        UserError: The model cannot take packed rows; the message has the reason.
    """
    network: Any = model
    config: Any = getattr(network, "active_peft_config", None)
    check_no_virtual_tokens(config)
    base: Any = network.get_base_model() if hasattr(network, "get_base_model") else network
    name = type(base).__name__
    if "position_ids" not in inspect.signature(base.forward).parameters:
        raise UserError(f"data.packing: {name} takes no position_ids, which packing needs; set data.packing: false.")
    if getattr(base, "_is_stateful", False):
        raise UserError(
            f"data.packing: {name} has recurrent layers, whose state makes the rows of a packed sequence change each"
            " other's outputs; set data.packing: false."
        )
    packed, joined, scale, dtype = _trial(model, base.get_input_embeddings().num_embeddings)
    if not packed <= _rounding(dtype) * scale:
        kernel = base.config._attn_implementation
        advice = "" if kernel in KERNELS else ", or model.backbone.attn_implementation: sdpa"
        raise UserError(
            f"data.packing: in {name} with attention {kernel!r} the rows of a packed sequence change each other's"
            f" outputs (by {packed:.1e}; {joined:.1e} without packing's positions); set data.packing: false{advice}."
        )


def _rounding(dtype: torch.dtype) -> float:
    """Return the largest change by rounding, as a share of the largest logit.

    Right models stayed below 42 epsilons in float32 (30 layers) and 1 epsilon in bfloat16. TensorFloat-32 rounds the
    factors of a matrix product to 10 bits.
    """
    if dtype not in (torch.float32, torch.float64):
        return 8 * torch.finfo(dtype).eps
    tensor_float = torch.cuda.is_available() and torch.get_float32_matmul_precision() != "highest"
    return 8 * 2**-10 if tensor_float else 512 * torch.finfo(torch.float32).eps


@torch.no_grad()
def _trial(model: nn.Module, vocabulary: int) -> tuple[float, float, float, torch.dtype]:
    """Return the largest changes of logits by packing and by concatenation, and the size and dtype of logits."""
    source = random.Random(0)
    device = next(model.parameters()).device

    def row(length: int) -> TokenRow:
        ids = tuple(source.choices(range(vocabulary), k=length))
        return TokenRow(ids, ids)

    def logits(batch: Batch) -> Tensor:
        """Return the logits, (rows, columns, vocabulary), as in training; nan where no target is."""
        inputs = {name: value if value is None else value.to(device) for name, value in batch.items()}
        found, labels = target_logits(model, inputs)
        whole = found.new_full((*labels.shape, found.shape[-1]), float("nan"))
        whole[labels != IGNORED] = found
        return whole

    # only its position separates a row of one token from its neighbours
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
    """Switch dropout off; at the end, restore the mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
