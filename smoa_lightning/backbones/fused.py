"""Fused linear layers, such as ``qkv``, as one layer for each part, so that an adapter can change some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.common.errors import UserError

SETTING = "model.backbone.split_fused"
QKV = ("q", "k", "v")
# Architecture -> ending of a fused layer -> its parts, in the order of its outputs. GPT-NeoX, BLOOM, Falcon and DeBERTa
# mix the parts head by head, so their fused layers stay one layer.
FUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "gpt2": {"attn.c_attn": QKV},
    "phi3": {"self_attn.qkv_proj": QKV, "mlp.gate_up_proj": ("gate", "up")},
    "modernbert": {"attn.Wqkv": QKV, "mlp.Wi": ("input", "gate")},
    "timm_wrapper": {"attn.qkv": QKV},
}


class SplitLinear(nn.Module):
    """The parts of a fused layer: y = [W_1 x + b_1, W_2 x + b_2, ...], with the rows W_i, b_i of the fused W and b.

    Args:
        fused: A linear layer, or GPT-2's ``Conv1D``.
        sizes: Name of each part -> its number of outputs; their sum is that of the layer.
    """

    def __init__(self, fused: nn.Linear | Conv1D, sizes: Mapping[str, int]) -> None:
        super().__init__()
        start = 0
        for name, size in sizes.items():
            self.add_module(name, _rows(fused, slice(start, start + size)))
            start += size

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all parts, (..., d_1 + d_2 + ...), of x (..., d_in)."""
        return torch.cat([part(x) for part in self.children()], dim=-1)

    @property
    def weight(self) -> Tensor:
        """Refuse a model that multiplies with the fused weight itself, as timm's BEiT does.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{SETTING} is true, but the model reads the weight of a fused layer itself: set it to false")

    def joined(self) -> nn.Linear | Conv1D:
        """Return the fused layer; the parts have no adapters any more."""
        parts: list[Any] = list(self.children())
        of_outputs = 1 if isinstance(parts[0], Conv1D) else 0
        weight = torch.cat([part.weight for part in parts], dim=of_outputs)
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        return _layer(type(parts[0]), weight, bias)


def _rows(fused: Any, rows: slice) -> nn.Linear | Conv1D:
    weight = fused.weight[:, rows] if isinstance(fused, Conv1D) else fused.weight[rows]
    bias = None if fused.bias is None else fused.bias[rows].clone()
    return _layer(type(fused), weight.clone(memory_format=torch.contiguous_format), bias)


def _layer(kind: Any, weight: Tensor, bias: Tensor | None) -> nn.Linear | Conv1D:
    with torch.device("meta"):
        if kind is Conv1D:
            layer: Any = Conv1D(weight.shape[1], weight.shape[0])
        else:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return layer  # type: ignore[no-any-return]


def split_fused(model: Any, name: str) -> None:
    """Replace the fused layers of a model by their parts, in place; layers that are split stay as they are.

    Args:
        model: The model, with or without weights.
        name: Repository or folder, for the message.

    Raises:
        UserError: The model has no fused layer whose parts are known.
    """
    known = FUSED.get(getattr(model.config, "model_type", ""), {})
    found = 0
    for path, module in list(model.named_modules()):
        ending = next((end for end in known if path.endswith(f".{end}")), None)
        found += ending is not None
        if ending is not None and isinstance(module, nn.Linear | Conv1D):
            model.set_submodule(path, SplitLinear(module, _sizes(module, known[ending], model.config)))
    if not found:
        raise UserError(
            f"{SETTING} is true, but {name!r} is of the kind {model.config.model_type!r}, which has no fused layer "
            f"whose outputs lie one part after the other: set it to false; such layers are known of {', '.join(FUSED)}"
        )


def join_fused(model: nn.Module) -> None:
    """Undo :func:`split_fused`, in place."""
    for path, module in list(model.named_modules()):
        if isinstance(module, SplitLinear):
            model.set_submodule(path, module.joined())


def split_targets(model: nn.Module, targets: list[str]) -> list[str]:
    """Return targets with the parts of a split layer in the place of its name."""
    found: list[str] = []
    for target in targets:
        modules = [m for path, m in model.named_modules() if path == target or path.endswith(f".{target}")]
        split = next((m for m in modules if isinstance(m, SplitLinear)), None)
        found += [target] if split is None else [f"{target}.{part}" for part, _ in split.named_children()]
    return found


def _sizes(layer: Any, parts: tuple[str, ...], config: Any) -> dict[str, int]:
    """Return the outputs of each part; keys and values have fewer ones with grouped heads."""
    outputs = int(layer.weight.shape[1 if isinstance(layer, Conv1D) else 0])
    heads = getattr(config, "num_attention_heads", None) or 1
    share = (getattr(config, "num_key_value_heads", None) or heads) / heads if parts == QKV else 1.0
    first = round(outputs / (1 + (len(parts) - 1) * share))
    rest = (outputs - first) // (len(parts) - 1)
    return {part: rest if number else first for number, part in enumerate(parts)}
