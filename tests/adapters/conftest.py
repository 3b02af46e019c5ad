"""Tiny random backbones, and adapters whose factors are random instead of starting at zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import smoa_lightning.adapters  # noqa: F401  (registers the tuner)

# Only linear layers, none of which is a multiple of the usual numbers of subspaces in both directions.
LLAMA = {
    "hidden_size": 20,
    "intermediate_size": 33,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,  # large enough for every layer to matter
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Peft asks transformers for gradient checkpointing through a deprecated name when it loads an adapter."""
    for item in items:
        if "adapters" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"))


@pytest.fixture
def llama() -> Callable[..., LlamaForCausalLM]:
    """Make the same tiny Llama at every call; another one for another seed."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: int) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**{**LLAMA, **changes})).to(dtype).eval()

    return make


@pytest.fixture
def gpt2() -> Callable[..., GPT2LMHeadModel]:
    """Make the same tiny GPT-2 at every call."""

    def make(seed: int = 0) -> GPT2LMHeadModel:
        torch.manual_seed(seed)
        config = GPT2Config(
            n_embd=20,
            n_layer=2,
            n_head=2,
            vocab_size=40,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.2,
        )
        return GPT2LMHeadModel(config).eval()

    return make


@pytest.fixture
def token_ids() -> torch.Tensor:
    return torch.arange(24).view(2, 12) % 40


@pytest.fixture
def randomise() -> Callable[..., nn.Module]:
    """Give every factor B of a model or layer random values, so that the adapter does something."""

    def fill(module: nn.Module, scale: float = 0.5, seed: int = 7) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in module.named_parameters():
            if "smoa_B" in name or "lora_B" in name or "hira_B" in name:
                with torch.no_grad():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        return module

    return fill
