"""The factors of a LoRA that has the update of any method: the best approximation of each rank, by torch's own SVD."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

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
