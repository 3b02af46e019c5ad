"""What an adapted model consists of: layers, trainable parameters, rank bounds and bytes, for any peft method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import nn

from smoa_lightning.adapters.smoa import SmoaLinear


@dataclass(frozen=True)
class AdaptedLayer:
    """One layer with an adapter.

    Attributes:
        name: Full name of the layer in the backbone.
        kind: The peft method in small letters, as ``lora`` or ``smoa``.
        out_features: d_out.
        in_features: d_in.
        trainable_parameters: Number of parameters that training moves in this layer.
        rank_bound: Upper bound of the rank of the update; min(d_out, d_in) where nothing smaller is known.
    """

    name: str
    kind: str
    out_features: int
    in_features: int
    trainable_parameters: int
    rank_bound: int


def adapted_layers(model: PeftModel) -> list[AdaptedLayer]:
    """List the layers that the active adapters of a model change, in the order of the model; none for prompt learning.

    Args:
        model: A model adapted with any peft method; the meta device will do.
    """
    found = []
    for name, module in model.get_base_model().named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        active = [adapter for adapter in module.active_adapters if adapter in module._get_available_adapters()]
        if not active:
            continue
        out_features, in_features = _shape(module)
        bounds = [_rank_bound(module, adapter, min(out_features, in_features)) for adapter in active]
        found.append(
            AdaptedLayer(
                name=name,
                kind=str(getattr(model.peft_config[active[0]].peft_type, "value", "unknown")).lower(),
                out_features=out_features,
                in_features=in_features,
                trainable_parameters=_trainable(module),
                rank_bound=min(sum(bounds), out_features, in_features),
            )
        )
    return found


def _shape(layer: Any) -> tuple[int, int]:
    if getattr(layer, "out_features", None) and getattr(layer, "in_features", None):
        return int(layer.out_features), int(layer.in_features)
    weight = layer.get_base_layer().weight
    return (int(weight.shape[0]), int(weight.shape[1])) if weight.dim() == 2 else (weight.numel(), 1)


def _trainable(layer: BaseTunerLayer) -> int:
    """Parameters of one tuner layer that require gradients, but for those of the layer inside it (its biases)."""
    assert isinstance(layer, nn.Module)
    inner = {id(parameter) for parameter in layer.get_base_layer().parameters()}
    return sum(p.numel() for p in layer.parameters() if p.requires_grad and id(p) not in inner)


def _rank_bound(layer: BaseTunerLayer, adapter: str, limit: int) -> int:
    if isinstance(layer, SmoaLinear):
        return layer.rank_bound(adapter)
    if isinstance(layer, LoraLayer) and not layer.use_dora.get(adapter, False) and adapter in layer.r:
        return min(limit, int(layer.r[adapter]))
    return limit  # HiRA, DoRA, LoHa, LoKr, OFT, ...: full rank is not excluded


def adapter_bytes(model: PeftModel) -> int:
    """Size in bytes of the safetensors files that ``save_pretrained`` writes for the active adapters of a model.

    The meta device will do: zeros of the same names, dtypes and shapes make a file of the same size.
    """
    total = 0
    for adapter in model.active_adapters:
        state = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
        blank = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in state.items()}
        total += len(safetensors.torch.save(blank, metadata={"format": "pt"}))
    return total
