"""The factors of a LoRA that has the update of any method: the best approximation of each rank, by torch's own SVD."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from smoa_lightning.adapters.inspect import largest_rank
from smoa_lightning.training.export.lora import choose_rank, decompose, find_updates


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
def test_the_factors_are_the_best_approximation(shape: tuple[int, int]) -> None:
    delta = torch.randn(shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    update = decompose(delta)
    torch.testing.assert_close(update.values, values)
    for rank in (1, 3, 5, 7):
        a, b = update.factors(delta, rank)
        assert a.shape == (rank, shape[1])
        torch.testing.assert_close(b @ a, left[:, :rank] * values[:rank] @ right[:rank], atol=1e-6, rtol=1e-6)


def test_an_update_without_a_linear_layer_has_no_lora(tiny_backbone: Path) -> None:
    models = [AutoModelForCausalLM.from_pretrained(tiny_backbone) for _ in range(2)]
    assert not find_updates(*models).layers
    with torch.no_grad():
        models[1].model.layers[0].self_attn.q_proj.weight += 1.0  # of rank one
    updates = find_updates(*models)
    assert choose_rank(updates, None, None)[0] == 1


@pytest.mark.parametrize("saved", [None, ["lm_head"]])
def test_a_layer_that_is_trained_in_full_is_no_exact_lora(saved: list[str] | None) -> None:
    """The rank of the adapter is not that of another layer with a full update."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 1}
    backbone = LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=False, **sizes))
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=saved)
    model: Any = get_peft_model(copy.deepcopy(backbone), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    bound = largest_rank(model)
    updates = find_updates(backbone, model.merge_and_unload())
    assert bound == 2
    assert len(updates.layers) == (1 if saved is None else 2)
    rank, reason = choose_rank(updates, bound, None)
    assert ("exact" in reason) == (saved is None)
    assert updates.error(rank) <= (1e-3 if saved is None else 0.01)
