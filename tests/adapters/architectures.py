"""One tiny random model of every supported family: seeded, in evaluation mode, with weights large enough to matter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification
from transformers import AutoModelForSequenceClassification as SequenceClassification

# Sizes that no usual number of subspaces divides in both directions; in the names that each family gives them.
_COMMON = {"vocab_size": 40, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZES = {
    **_COMMON,
    "hidden_size": 20,
    "intermediate_size": 33,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 1}
_HEAD = {**_GROUPED, "head_dim": 10}
_GEMMA = {**_HEAD, "query_pre_attn_scalar": 10, "sliding_window": 64}
_NO_DROPOUT_OF_GPT2 = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_ENCODER = {**_SIZES, "num_labels": 3, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Fused experts are one grouped product, which wants rows of a multiple of 16 bytes, in bfloat16 too.
_EXPERTS = {**_GROUPED, "hidden_size": 24, "intermediate_size": 40, "num_experts_per_tok": 2}
_EXPERTS_OF_QWEN = {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 16}

_CAUSAL: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": _HEAD,
    "mistral": _GROUPED,
    "gemma": _HEAD,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": {**_COMMON, "n_embd": 20, "n_layer": 2, "n_head": 2, "n_positions": 128, **_NO_DROPOUT_OF_GPT2},
    "gpt_neox": _SIZES,
    "opt": {**_SIZES, "ffn_dim": 33, "word_embed_proj_dim": 20, "init_std": 0.2, "dropout": 0.0},
    "phi": {**_SIZES, "partial_rotary_factor": 0.4},
    "phi3": _GROUPED,
    "mixtral": {**_EXPERTS, "num_local_experts": 4},
    "qwen2_moe": {**_EXPERTS_OF_QWEN, "shared_expert_intermediate_size": 25},
    "qwen3_moe": {**_EXPERTS_OF_QWEN, "head_dim": 12, "mlp_only_layers": [1]},
    "olmoe": {**_EXPERTS, "num_experts": 4},
}
_VISION = {**_ENCODER, "image_size": 8, "patch_size": 4, "num_channels": 3}
_SWIN = {"image_size": 8, "patch_size": 2, "embed_dim": 20, "depths": [2], "num_heads": [2], "window_size": 2}
_CLIP = {"vision_config": {**_VISION, "projection_dim": 12}, "text_config": {**_SIZES, "projection_dim": 12}}
_CLASSIFIERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (SequenceClassification, _ENCODER),
    "roberta": (SequenceClassification, _ENCODER),
    "vit": (AutoModelForImageClassification, _VISION),
    "deit": (AutoModelForImageClassification, {**_VISION, "architectures": ["DeiTForImageClassification"]}),
    "beit": (AutoModelForImageClassification, {**_VISION, "drop_path_rate": 0.0}),
    "dinov2": (AutoModelForImageClassification, {**_VISION, "mlp_ratio": 2}),
    "swin": (
        AutoModelForImageClassification,
        {**_SWIN, "num_labels": 3, "mlp_ratio": 1.7, "drop_path_rate": 0.0, "initializer_range": 0.2},
    ),
    "clip": (AutoModelForImageClassification, {**_CLIP, "projection_dim": 12, "num_labels": 3}),
}


def _build(name: str, **changes: Any) -> nn.Module:
    auto, settings = _CLASSIFIERS.get(name, (AutoModelForCausalLM, _CAUSAL.get(name)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = auto.from_config(AutoConfig.for_model(name, **{**settings, **changes}))
    return model.eval()


# Every one takes changes of its config as keywords, as in ARCHITECTURES["llama"](vocab_size=300).
ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {name: partial(_build, name) for name in (*_CAUSAL, *_CLASSIFIERS)}
CAUSAL = tuple(_CAUSAL)
VISION = ("vit", "deit", "beit", "dinov2", "swin", "clip")


def inputs(model: nn.Module) -> dict[str, Tensor]:
    """Two rows of input: pictures for a vision model, else 12 token ids."""
    config: Any = model.config
    if model.main_input_name == "pixel_values":
        config = getattr(config, "vision_config", config)
        generator = torch.Generator().manual_seed(1)
        reference = next(model.parameters())
        pixels = torch.randn(2, 3, config.image_size, config.image_size, generator=generator)
        return {"pixel_values": pixels.to(reference.dtype)}
    return {"input_ids": torch.arange(24).view(2, 12) % 37 + 3}  # no special token, so no mask is guessed from them


def logits(model: nn.Module, **inputs: Tensor) -> Tensor:
    """What the model predicts; for a causal language model at every position."""
    return model(**inputs).logits
