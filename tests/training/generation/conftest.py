"""A small random model with a chat template, and adapter folders on it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from smoa_lightning import FineTuneModule
from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.training.adapter_folder import save_adapter

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM = "Be brief."
FACTS: dict[str, Any] = {
    "task": "chat",
    "which": "best",
    "step": 1,
    "data_source": "local",
    "selection": {"metric": "nll", "score": None},
    "chat_template": True,
    "system": SYSTEM,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=2),
    "smoa": lambda: SMoAConfig(r=4),
    "pissa": lambda: peft.LoraConfig(r=2, init_lora_weights="pissa"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4),
    "full": lambda: None,
}
Saved = Callable[..., Path]


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    """Weights large enough that replies are not one token over and over; 512 positions."""
    folder = tmp_path_factory.mktemp("lively")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(byte_tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.3,
        max_position_embeddings=512, **sizes,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved(lively: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Make an adapter folder whose parameters have moved away from their start, once for each name and facts."""
    made: dict[str, Path] = {}

    def make(name: str, **facts: Any) -> Path:
        key = f"{name} {facts}"
        if key not in made:
            module = FineTuneModule(BackboneConfig(source="local", path=str(lively)), CONFIGS[name]())
            module.configure_model()
            generator = torch.Generator().manual_seed(len(made))
            with torch.no_grad():
                for parameter in module.parameters():
                    if parameter.requires_grad:
                        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
            made[key] = tmp_path_factory.mktemp(name) / "adapter"
            save_adapter(module, made[key], FACTS | facts)
        return made[key]

    return make
