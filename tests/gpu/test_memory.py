"""Peak memory of a training step: SMoA blocks do not need more than peft's LoRA of the same rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from smoa_lightning.adapters import SMoAConfig, attach

FACTOR = 1.1  # of LoRA's peak
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
METHODS: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=32, target_modules=TARGETS),
    "smoa": lambda: SMoAConfig(r=32, num_subspaces=2, target_modules=TARGETS),
}


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """How far the allocated memory grows during a step."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    grown = highest = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        grown += size
        highest = max(highest, grown)
    return highest


def step_memory(name: str, dtype: torch.dtype, device: torch.device) -> int:
    """Peak of the third training step, when the optimizer has its state."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    backbone = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=4, vocab_size=128)).to(dtype)
    model = attach(backbone, METHODS[name](), seed=0).train().to(device)
    ids = (torch.arange(4 * 128) % 128).view(4, 128).to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()

    for _ in range(2):
        step()
    return peak_bytes(step, device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_step_of_smoa_blocks_needs_no_more_than_lora(dtype: torch.dtype, device: torch.device) -> None:
    needed = {name: step_memory(name, dtype, device) for name in METHODS}
    assert 0 < needed["smoa"] <= FACTOR * needed["lora"], needed
