"""Fused linear layers, such as ``qkv``, as one layer for each part, so that an adapter can change some of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.common.errors import UserError

SETTING = "model.backbone.split_fused"
# A key of adapter_config.json that peft does not know and shows in a warning. Without it, peft alone would leave out
# the split layers and say nothing.
KEY_FOR_PEFT = "load this adapter with smoa_lightning.load_adapter, its fused layers were split"
QKV = ("q", "k", "v")
# Architecture -> ending of a fused layer -> its parts, in the order of its outputs. GPT-NeoX, BLOOM, Falcon and DeBERTa
# mix the parts head by head, so their fused layers stay one layer.
FUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "gpt2": {"attn.c_attn": QKV},
    "phi3": {"self_attn.qkv_proj": QKV, "mlp.gate_up_proj": ("gate", "up")},
    "modernbert": {"attn.Wqkv": QKV, "mlp.Wi": ("input", "gate")},
    "timm_wrapper": {"attn.qkv": QKV},
}
# Modules of timm whose attention has queries, keys and values one after the other. Others mix them head by head
# (TinyViT, MaxViT), have two parts (GCViT) or multiply with the weight themselves (BEiT, EVA, Swin v2).
TIMM = {"timm.layers.attention"} | {
    f"timm.models.{name}"
    for name in ("cait", "davit", "hiera", "mvitv2", "swin_transformer", "swin_transformer_v2_cr", "vision_transformer",
                 "vision_transformer_relpos", "vision_transformer_sam", "xcit")
}  # fmt: skip


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
        if ending is None or not _is_in_order(model, path):
            continue
        found += 1
        if isinstance(module, nn.Linear | Conv1D):
            model.set_submodule(path, SplitLinear(module, _sizes(module, known[ending], model.config)))
    if not found:
        raise UserError(
            f"{SETTING} is true, but {name!r} is of the kind {model.config.model_type!r}, which has no fused layer "
            f"whose outputs lie one part after the other: set it to false; such layers are known of {', '.join(FUSED)}"
        )


def _is_in_order(model: Any, path: str) -> bool:
    """Whether the outputs of a fused layer lie one part after the other; timm has models where they do not."""
    owner = type(model.get_submodule(path.rpartition(".")[0])).__module__
    return not owner.startswith("timm.") or owner in TIMM


def join_fused(model: nn.Module) -> None:
    """Undo :func:`split_fused`, in place."""
    for path, module in list(model.named_modules()):
        if isinstance(module, SplitLinear):
            model.set_submodule(path, module.joined())


def split_names(model: nn.Module, names: list[str] | str) -> list[str] | str:
    """Return names of layers with the parts of a split layer in the place of its name.

    Args:
        model: The model.
        names: Full names or endings of names, or a regular expression of full names. One that matches no split layer
            is returned as it is.
    """
    modules = dict(model.named_modules())
    if isinstance(names, str):
        matched = [path for path in modules if _matches(names, path)]
        if not any(isinstance(modules[path], SplitLinear) for path in matched):
            return names
        names = matched
    found: list[str] = []
    for name in names:
        named = [module for path, module in modules.items() if path == name or path.endswith(f".{name}")]
        split = next((module for module in named if isinstance(module, SplitLinear)), None)
        found += [name] if split is None else [f"{name}.{part}" for part, _ in split.named_children()]
    return list(dict.fromkeys(found))


def split_patterns(model: nn.Module, patterns: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of layers, such as ``rank_pattern``, with the parts of a split layer in the place of its name.

    Args:
        model: The model.
        patterns: Ending of a full name, or a regular expression of such endings -> value; the first one decides.
    """
    found: dict[str, Any] = {}
    for pattern, value in patterns.items():
        matched = [(path, m) for path, m in model.named_modules() if _matches(rf"(.*\.)?({pattern})", path)]
        split = {path: module for path, module in matched if isinstance(module, SplitLinear)}
        for path, module in split.items():
            found |= {
                name: found.get(name, value) for name in (f"{path}.{part}" for part, _ in module.named_children())
            }
        if len(split) < len(matched) or not split:
            found.setdefault(pattern, value)
    return found


def _matches(pattern: str, name: str) -> bool:
    """Whether a regular expression matches; one that is not valid matches nothing, and is refused elsewhere."""
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False


def _sizes(layer: Any, parts: tuple[str, ...], config: Any) -> dict[str, int]:
    """Return the outputs of each part; keys and values have fewer ones with grouped heads."""
    outputs = int(layer.weight.shape[1 if isinstance(layer, Conv1D) else 0])
    heads = getattr(config, "num_attention_heads", None) or 1
    share = (getattr(config, "num_key_value_heads", None) or heads) / heads if parts == QKV else 1.0
    first = round(outputs / (1 + (len(parts) - 1) * share))
    rest = (outputs - first) // (len(parts) - 1)
    return {part: rest if number else first for number, part in enumerate(parts)}
