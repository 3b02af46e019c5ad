"""Ranks of updates, and the bounds that methods claim."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    FourierFTConfig,
    GraloraConfig,
    HiraConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftConfig,
    PromptTuningConfig,
    VeraConfig,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from smoa_lightning.adapters import SMoAConfig, adapted_layers, attach, gram, layer_update, update_rank
from smoa_lightning.adapters.bottleneck import BottleneckConfig
from smoa_lightning.adapters.rank import base_shift, shift_rounding, singular_values
from smoa_lightning.adapters.smoa.config import BLOCK_PARTITIONS
from smoa_lightning.common.errors import UserError

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


@pytest.mark.parametrize("shape", [(120, 300), (200, 200), (301, 97)])
@pytest.mark.parametrize("rank", [0, 1, 5, 12])
def test_singular_values_of_a_low_rank_come_from_a_sketch(rank: int, shape: tuple[int, int]) -> None:
    """They are those of a dense float64 decomposition; a bound that is too small changes nothing."""
    torch.manual_seed(rank)
    delta = torch.randn(shape[0], rank) @ torch.logspace(0, -3, rank).diag() @ torch.randn(rank, shape[1])
    reference = torch.linalg.svdvals(delta.double())
    sketched = gram.low_rank_singular_values(delta, rank)
    assert sketched is not None
    assert sketched.shape == reference.shape
    assert (sketched - reference).abs().max() <= 1e-7 * reference.max()
    assert torch.equal(singular_values(delta, rank), sketched)
    dense = torch.randn(shape)
    assert gram.low_rank_singular_values(dense, rank) is None
    assert torch.equal(singular_values(dense, rank), singular_values(dense))
    assert gram.low_rank_singular_values(delta, min(shape) // 4) is None  # nothing to gain


@pytest.mark.parametrize("shape", [(120, 300), (200, 200), (301, 97)])
@pytest.mark.parametrize("kind", ["dense", "low rank", "decaying", "one"])
def test_gram_singular_values_are_within_the_stated_tolerance(kind: str, shape: tuple[int, int]) -> None:
    """Of a float32 matrix they differ by less than 1e-7 of the largest from a dense float64 decomposition."""
    torch.manual_seed(0)
    smaller = min(shape)
    u, v = (torch.linalg.qr(torch.randn(n, smaller, dtype=torch.float64)).Q for n in shape)
    s = {
        "dense": torch.rand(smaller).double() + 0.5,
        "low rank": torch.cat([torch.ones(5), torch.zeros(smaller - 5)]).double(),
        "decaying": torch.logspace(0, -12, smaller, dtype=torch.float64),
        "one": torch.eye(smaller, dtype=torch.float64)[0],
    }[kind]
    delta = ((u * s) @ v.T).float()
    values, reference = singular_values(delta), torch.linalg.svdvals(delta.double())
    assert values.dtype == torch.float64
    assert float((values - reference).abs().max()) <= 1e-7 * float(reference[0])
    assert (values.diff() <= 0).all()
    exact = singular_values(delta.double())  # a float64 matrix is decomposed itself
    torch.testing.assert_close(exact, reference, rtol=1e-12, atol=1e-15)


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
    with pytest.raises(UserError, match="not an adapted layer"):
        layer_update(nn.Linear(2, 2))
    model = attach(llama(), LoraConfig(r=4), seed=0)
    model.merge_adapter()
    with pytest.raises(UserError, match="unmerge it"):
        layer_update(tuner_layers(model)[0])


@pytest.mark.parametrize("modulation", ["weight", "none", "random"])
@pytest.mark.parametrize(
    "partition", ["none", "spectral_energy", "spectral_blocks", "contiguous_blocks", "random_blocks", "grid_blocks"]
)
def test_rank_bounds_hold_and_are_reached(partition: Any, modulation: Any, llama: Maker, randomise: Maker) -> None:
    """With random B the numerical rank is at most the bound, and far above r wherever the product is modulated."""
    count = 1 if partition == "none" else 2
    config = SMoAConfig(r=2, num_subspaces=count, partition=partition, modulation=modulation)
    model = randomise(attach(llama(), config, seed=0)).double()
    for layer, entry in zip(tuner_layers(model), adapted_layers(model), strict=True):
        numerical = update_rank(layer.dense_update("default")).numerical
        weight = layer.unmerged_weight()
        if partition in BLOCK_PARTITIONS:
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
            exact = min(exact, 4 if partition == "grid_blocks" else 2)  # K r: every row of tiles has rank r of its own
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


@pytest.mark.parametrize(
    ("config", "bound"),
    [
        (LoraConfig(r=3), 3),
        (LoraConfig(r=3, use_rslora=True, rank_pattern={"q_proj": 3}), 3),
        (AdaLoraConfig(init_r=3, target_r=2, total_step=10), 3),
        (VeraConfig(r=3), 3),
        (LoHaConfig(r=3, init_weights=False), 9),
        (GraloraConfig(r=4, gralora_k=2, hybrid_r=0), 8),
        (GraloraConfig(r=2, gralora_k=2, hybrid_r=1), 5),
        (FourierFTConfig(n_frequency=3), 6),
        (LoKrConfig(r=1, decompose_factor=4), 4),
        (LoKrConfig(r=1, decompose_factor=4, decompose_both=True), 1),
        (LoraConfig(r=3, use_dora=True), 20),
        (HiraConfig(r=3), 20),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PeftConfig) else str(value),
)
def test_bounds_of_peft_methods_are_reached_and_not_passed(config: Any, bound: int, llama: Maker) -> None:
    """With all parameters random, every layer has the rank that its method allows, and no more."""
    config.target_modules = ["q_proj", "o_proj"]
    model = attach(llama(intermediate_size=32, num_attention_heads=1), config, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    entries = adapted_layers(model)
    assert {(entry.rank_bound, min(entry.out_features, entry.in_features)) for entry in entries} == {(bound, 20)}
    for layer in tuner_layers(model):
        assert update_rank(layer_update(layer)).numerical == bound


@pytest.mark.parametrize("start", ["pissa", "olora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_initialisation_that_moves_the_base_weight(start: Any, dtype: torch.dtype, llama: Maker) -> None:
    """Against the backbone's own weight the update is s (B A - B_0 A_0), of rank 2 r, whatever was rounded."""
    base = llama(dtype=dtype)
    weights = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    model = attach(base, LoraConfig(r=2, lora_alpha=4, init_lora_weights=start), seed=0)
    for name, layer in model.get_base_model().named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        original = weights[f"{name}.weight"]
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        first = (B @ A).detach().clone()
        B.data += 0.1 * torch.randn(B.shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(layer_update(layer), 2 * (B @ A).detach(), rtol=1e-5, atol=1e-6)
        delta = layer_update(layer, original=original)
        expected = 2 * (B @ A).detach() - 2 * first
        torch.testing.assert_close(delta, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 2e-2)
        assert update_rank(delta, shift_rounding(original)).numerical <= 4
        if dtype == torch.bfloat16:
            assert update_rank(delta).numerical > 4  # the rounding of the moved weight, which is no part of the method
    assert {entry.rank_bound for entry in adapted_layers(model)} == {4}


def test_the_base_weight_is_recognised_as_the_backbones_own(llama: Maker, gpt2: Maker) -> None:
    for make, config in ((llama, SMoAConfig(r=4)), (gpt2, LoraConfig(r=4, fan_in_fan_out=True))):
        base = make()
        weights = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
        model = attach(base, config, seed=0)
        names = [n for n, m in model.get_base_model().named_modules() if isinstance(m, BaseTunerLayer)]
        layer = model.get_base_model().get_submodule(names[0])
        original = weights[f"{names[0]}.weight"]
        assert base_shift(layer, original) is None
        assert not layer_update(layer, original=original).any()
        moved = layer_update(layer, original=original - 1)
        assert moved.shape == (layer.out_features, layer.in_features)
        torch.testing.assert_close(moved, torch.ones_like(moved))


def test_the_adapter_slot_has_no_rank(llama: Maker) -> None:
    model = attach(llama(), BottleneckConfig(bottleneck_size=3), seed=0)
    assert {(entry.rank_bound, entry.out_features, entry.in_features) for entry in adapted_layers(model)} == {
        (0, 20, 20)
    }
    with pytest.raises(UserError, match="so it has no rank"):
        layer_update(tuner_layers(model)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("side", [64, 128, 200])
def test_the_numerical_rank_of_a_matrix_in_half_precision(dtype: torch.dtype, side: int) -> None:
    """The tolerance is that of float32: with the eps of bfloat16, no singular value would count from a side of 128."""
    matrix = torch.diag(torch.tensor([2.0, 1.0, 0.5] + [0.0] * (side - 3)))
    assert update_rank(matrix.to(dtype)).numerical == 3
