"""Linear layers that hold their weight in 8 or 4 bits: which kind, the weight they stand for, and who keeps it.

Layers of bitsandbytes are told by the class of their weight, as peft does, so that nothing here imports that library
before a backbone is loaded with it. Sources: LLM.int8() arXiv 2208.07339, NF4 (QLoRA) arXiv 2305.14314.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from peft.utils.integrations import dequantize_bnb_weight
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from smoa_lightning.common.errors import UserError

_KEEP, _KEPT = "keep_dequantized", "kept_dequantized"


def quantization(module: Any) -> str | None:
    """How a layer holds its weight: ``int8``, ``nf4`` or ``fp4``; None for a floating-point weight, or no weight."""
    weight: Any = getattr(module, "weight", None)
    kind = type(weight).__name__
    if kind == "Int8Params" and weight.dtype == torch.int8:
        return "int8"
    if kind == "Params4bit" and weight.bnb_quantized:
        return str(weight.quant_type)
    return None


def quantized_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model that hold their weight in 8 or 4 bits, not the adapters around them."""
    return (module for module in model.modules() if "weight" in module._parameters and quantization(module) is not None)


def multiplies_by_weight(module: nn.Module) -> bool:
    """Whether the layer's own product is ``x W^T + b`` with the dequantised W; LLM.int8() rounds x as well."""
    return quantization(module) != "int8"


def dequantized_weight(module: Any) -> Tensor:
    """W of shape (out_features, in_features) that a quantised layer stands for, in the dtype that it computes in.

    A new matrix at every call, unless :func:`prepare_quantized` told the layer to keep it.
    """
    kept: Tensor | None = getattr(module, _KEPT, None)
    if kept is not None and kept.device == module.weight.device:
        return kept
    with torch.inference_mode(False), torch.no_grad():  # one kept in validation must also serve training
        weight: Tensor = dequantize_bnb_weight(module.weight, state=getattr(module, "state", None))
        weight = weight.to(getattr(module, "compute_dtype", None) or weight.dtype)
    if getattr(module, _KEEP, False):
        setattr(module, _KEPT, weight)
    return weight


def prepare_quantized(model: nn.Module, dtype: torch.dtype | None = None, keep: bool | None = None) -> None:
    """Set up the quantised layers of a model for adapters.

    bitsandbytes repacks 4-bit weights for its own kernel when a layer first runs in evaluation on a CPU with AVX512
    bfloat16: that rounds their scales, fails unless out_features is a multiple of 32, and cuts the gradient of every
    later training step. It is switched off.

    Args:
        model: A model, or one layer.
        dtype: What W is dequantised to; None leaves it as it is.
        keep: Whether every dequantised W is kept: no more time than over a float backbone, but its memory on top.
            None leaves it as it is.
    """
    for module in quantized_layers(model):
        if quantization(module) != "int8":
            _keep_layout(module)
        if dtype is not None:
            module.compute_dtype = dtype  # type: ignore[assignment]
        if keep is not None:
            setattr(module, _KEEP, keep)
            setattr(module, _KEPT, None)


def _keep_layout(module: Any) -> None:
    if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
        raise UserError(
            "a 4-bit weight was already repacked for inference on this CPU, which rounds it: attach the adapter before "
            "the backbone first runs, or load it with smoa_lightning.backbones.backbone.load_model."
        )
    module.support_avx512bf16_for_cpu = False


def quantization_config(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What transformers needs to load linear layers in ``int8`` or ``nf4``, computing in ``dtype``.

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
