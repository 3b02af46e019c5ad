"""Linear layers with a weight in 8 or 4 bits: their format, their dequantised weight, and its cache.

Layers of bitsandbytes are recognised by the class of their weight, as in peft. So bitsandbytes is imported only if a
backbone uses it. Sources: LLM.int8() arXiv 2208.07339, NF4 (QLoRA) arXiv 2305.14314.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from smoa_lightning.common.errors import UserError

_CACHES, _CACHED = "keep_dequantized", "kept_dequantized"  # attributes of a layer: a flag, and the matrix


def quantization(module: Any) -> str | None:
    """Return the format of a layer's weight: ``int8``, ``nf4``, ``fp4``, or None for floating point and no weight."""
    weight: Any = getattr(module, "weight", None)
    kind = type(weight).__name__
    if kind == "Int8Params" and weight.dtype == torch.int8:
        return "int8"
    if kind == "Params4bit" and weight.bnb_quantized:
        return str(weight.quant_type)
    return None


def quantized_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model with a weight in 8 or 4 bits, without the adapters around them."""
    return (module for module in model.modules() if "weight" in module._parameters and quantization(module) is not None)


def multiplies_by_weight(module: nn.Module) -> bool:
    """Whether the layer computes ``x W^T + b`` with the dequantised W; LLM.int8() rounds x as well."""
    return quantization(module) != "int8"


def dequantized_weight(module: Any) -> Tensor:
    """Return W of shape (out_features, in_features) of a quantised layer, dequantised to its compute dtype.

    The result is a new matrix at every call, unless :func:`prepare_quantized` set the layer to cache it.
    """
    cached: Tensor | None = getattr(module, _CACHED, None)
    if cached is not None and cached.device == module.weight.device:
        return cached
    from peft.utils.integrations import dequantize_bnb_weight

    with torch.inference_mode(False), torch.no_grad():  # training also uses a weight that validation cached
        weight: Tensor = dequantize_bnb_weight(module.weight, state=getattr(module, "state", None))
        weight = weight.to(getattr(module, "compute_dtype", None) or weight.dtype)
    if getattr(module, _CACHES, False):
        setattr(module, _CACHED, weight)
    return weight


def prepare_quantized(model: nn.Module, dtype: torch.dtype | None = None, keep: bool | None = None) -> None:
    """Set up the quantised layers of a model for adapters.

    This switches off a feature of bitsandbytes: on a CPU with AVX512 bfloat16, it repacks 4-bit weights at the first
    evaluation of a layer. Repacking rounds their scales, fails unless out_features is a multiple of 32, and cuts the
    gradient of later training steps.

    Args:
        model: A model, or one layer.
        dtype: Dtype of the dequantised W; None leaves it unchanged.
        keep: Whether every dequantised W is cached: as fast as a float backbone, but with its memory in addition. None
            leaves it unchanged.
    """
    for module in quantized_layers(model):
        if quantization(module) != "int8":
            _keep_layout(module)
        if dtype is not None:
            module.compute_dtype = dtype  # type: ignore[assignment]
        if keep is not None:
            setattr(module, _CACHES, keep)
            setattr(module, _CACHED, None)


def _keep_layout(module: Any) -> None:
    if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
        raise UserError(
            "a 4-bit weight was already repacked for inference on this CPU, which rounds it: attach the adapter before "
            "the first run of the backbone, or load the backbone with smoa_lightning.backbones.backbone.load_model."
        )
    module.support_avx512bf16_for_cpu = False


def quantization_config(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the settings of transformers for linear layers in ``int8`` or ``nf4`` with products in ``dtype``.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"model.backbone.quantization is {kind!r}, but bitsandbytes is not installed: install the extra "
            "'smoa-lightning[quantization]', or set model.backbone.quantization to null."
        )
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=dtype)
