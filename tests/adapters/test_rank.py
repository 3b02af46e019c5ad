"""Ranks of updates, and the bounds that methods claim."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import HiraConfig, LoHaConfig, LoraConfig, PeftConfig, PromptTuningConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from smoa_lightning.adapters import SMoAConfig, adapted_layers, attach, layer_update, update_rank
from smoa_lightning.errors import UserError

Maker = Callable[..., Any]


def test_update_rank_of_known_singular_values() -> None:
    torch.manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, 3, dtype=torch.float64)).Q for n in (9, 7))
    s = torch.tensor([4.0, 2.0, 2.0], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        rank = update_rank(((u * s) @ v.T).to(dtype))
        assert rank.effective == pytest.approx(math.exp(-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))), rel=1e-3)
        assert rank.stable == pytest.approx(24 / 16, rel=1e-4)
        assert rank.numerical == 3


def test_update_rank_of_zero_and_of_bad_updates() -> None:
    rank = update_rank(torch.zeros(3, 4))
    assert (rank.effective, rank.stable, rank.numerical) == (0.0, 0.0, 0)
    with pytest.raises(UserError, match="not finite"):
        update_rank(torch.full((2, 2), float("nan")))


def tuner_layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config",
    [
        SMoAConfig(r=4),
        LoraConfig(r=4),
        LoraConfig(r=4, use_dora=True),
        LoraConfig(r=4, use_rslora=True),
        HiraConfig(r=4),
        LoHaConfig(r=4, init_weights=False),
    ],
    ids=["smoa", "lora", "dora", "rslora", "hira", "loha"],
)
def test_layer_update_is_what_the_layer_adds(
    config: PeftConfig, dtype: torch.dtype, llama: Maker, randomise: Maker
) -> None:
    model = randomise(attach(llama(dtype=dtype), config, seed=0)).eval()
    if isinstance(config, LoraConfig) and config.use_dora:
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.data.mul_(1.1)
    for layer in tuner_layers(model):
        weight = layer.get_base_layer().weight
        before, pointer = weight.detach().clone(), weight.data_ptr()
        delta = layer_update(layer)
        assert delta.shape == weight.shape
        assert delta.dtype == torch.float32
        assert torch.equal(weight, before)
        assert weight.data_ptr() == pointer
        assert weight.dtype == dtype
        assert not layer.merged
        if dtype == torch.float32:
            x = torch.randn(4, weight.shape[1])
            torch.testing.assert_close(layer(x), x @ (weight + delta).T, rtol=1e-4, atol=1e-5)
        if isinstance(config, LoraConfig) and not config.use_dora:
            assert update_rank(delta).numerical == 4  # rounding to bfloat16 must not look like rank


def test_layer_update_of_conv1d(gpt2: Maker, randomise: Maker) -> None:
    for config in (SMoAConfig(r=4), LoraConfig(r=4, fan_in_fan_out=True), HiraConfig(r=4, fan_in_fan_out=True)):
        layer = tuner_layers(randomise(attach(gpt2(), config, seed=0)))[0]
        delta = layer_update(layer)
        assert delta.shape == (60, 20)
        x = torch.randn(4, 20)
        torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ delta.T, rtol=1e-4, atol=1e-5)


def test_layer_update_refuses(llama: Maker) -> None:
    with pytest.raises(UserError, match="no adapted layer"):
        layer_update(nn.Linear(2, 2))
    model = attach(llama(), LoraConfig(r=4), seed=0)
    model.merge_adapter()
    with pytest.raises(UserError, match="unmerge it"):
        layer_update(tuner_layers(model)[0])


@pytest.mark.parametrize("modulation", ["weight", "none", "random"])
@pytest.mark.parametrize(
    "partition", ["none", "spectral_energy", "spectral_blocks", "contiguous_blocks", "random_blocks"]
)
def test_rank_bounds_hold_and_are_reached(partition: Any, modulation: Any, llama: Maker, randomise: Maker) -> None:
    """With random B the numerical rank is at most the bound, and far above r wherever the product is modulated."""
    count = 1 if partition == "none" else 2
    config = SMoAConfig(r=2, num_subspaces=count, partition=partition, modulation=modulation)
    model = randomise(attach(llama(), config, seed=0)).double()
    for layer, entry in zip(tuner_layers(model), adapted_layers(model), strict=True):
        numerical = update_rank(layer.get_delta_weight("default")).numerical
        weight = layer.unmerged_weight()
        if partition.endswith("blocks"):
            plan = layer.plan("default")
            ranks = torch.stack(
                [torch.linalg.matrix_rank(weight[i][:, j]) for i, j in zip(plan.rows, plan.cols, strict=True)]
            )
            exact = sum(
                min(len(i), len(j), rank * int(full))
                for i, j, rank, full in zip(plan.rows, plan.cols, plan.ranks, ranks, strict=True)
            )
        else:
            exact = min(weight.shape)
        if modulation == "none":
            exact = min(exact, 2)
        assert numerical <= entry.rank_bound
        assert numerical == exact
        if modulation != "none":
            assert numerical > 2


def test_update_starts_at_exactly_zero(llama: Maker) -> None:
    for layer in tuner_layers(attach(llama(), SMoAConfig(r=4), seed=0)):
        delta: Tensor = layer_update(layer)
        assert not delta.any()


def test_prompt_learning_has_no_layers(llama: Maker) -> None:
    assert not tuner_layers(attach(llama(), PromptTuningConfig(num_virtual_tokens=2), seed=0))
