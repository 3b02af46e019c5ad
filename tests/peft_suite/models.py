"""Small random models of the architectures that peft's suite loads from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

_SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {"vocab_size": 200, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.2}
_GPT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GROUPED = {**_SIZES, "num_key_value_heads": 1}

Architecture = tuple[str, Any, dict[str, Any]]
DECODERS: list[Architecture] = [
    ("opt", AutoModelForCausalLM, {**_SIZES, "ffn_dim": 24, "word_embed_proj_dim": 16, "init_std": 0.2}),
    ("gpt2", AutoModelForCausalLM, _GPT),
    ("gptj", AutoModelForCausalLM, {**_GPT, "rotary_dim": 4}),
    ("llama", AutoModelForCausalLM, _GROUPED),
    ("qwen2", AutoModelForCausalLM, _GROUPED),
    ("gemma3_text", AutoModelForCausalLM, {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8}),
]
CLASSIFIERS: list[Architecture] = [
    (name, AutoModelForSequenceClassification, {**_SIZES, "num_labels": 2}) for name in ("bert", "roberta")
]
ENCODERS: list[Architecture] = [(name, AutoModel, _SIZES) for name in ("bert", "roberta", "deberta", "deberta-v2")]


def folders(root: Path, architectures: list[Architecture]) -> list[str]:
    """Return the folders of the models, and write those that are missing."""
    names = []
    for kind, auto, settings in architectures:
        folder = root / f"{auto.__name__}-tiny-random-{kind}"
        if not (folder / "config.json").exists():
            torch.manual_seed(0)
            auto.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(folder)
        names.append(str(folder))
    return names
