"""Corner cases of the SMoA equation are the methods they are named after: peft's own HiRA and LoRA, and MELoRA."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import GraloraConfig, HiraConfig, LoraConfig, PeftConfig, PeftModel
from torch import Tensor, nn

from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.adapters.smoa import SmoaLinear
from smoa_lightning.adapters.smoa.terms import split_factors
from smoa_lightning.configuration.methods import methods

Maker = Callable[..., nn.Module]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=["llama", "gpt2"])
def backbone(request: pytest.FixtureRequest) -> tuple[Maker, list[str]]:
    """A maker of backbones and layers to adapt: nn.Linear in one, Conv1D in the other."""
    targets = {"llama": ["q_proj", "up_proj", "down_proj"], "gpt2": ["c_attn", "c_fc", "mlp.c_proj"]}
    return request.getfixturevalue(request.param), targets[request.param]


def tuner_layers(model: PeftModel) -> dict[str, Any]:
    return {name: m for name, m in model.named_modules() if hasattr(m, "base_layer")}


def loss_and_logits(model: nn.Module, token_ids: Tensor) -> tuple[Tensor, Tensor]:
    output = model(token_ids, labels=token_ids)
    return output.loss, output.logits


def peft_reference(make: Maker, config: PeftConfig, names: tuple[str, str]) -> tuple[PeftModel, dict[str, Any]]:
    """A model with one of peft's own adapters and random factors; its factors by layer name."""
    model = attach(make(), config, seed=0)
    factors = {}
    generator = torch.Generator().manual_seed(11)
    for name, layer in tuner_layers(model).items():
        pair = [getattr(layer, attribute)["default"] for attribute in names]
        pair = [part.weight if isinstance(part, nn.Linear) else part for part in pair]
        with torch.no_grad():
            pair[1].copy_(torch.randn(pair[1].shape, generator=generator) * 0.3)
        factors[name] = pair
    return model, factors


@pytest.mark.parametrize(
    ("partition", "count"),
    [("none", 1), ("spectral_energy", 1), ("spectral_blocks", 1), ("contiguous_blocks", 1), ("grid_blocks", 1)],
)
@pytest.mark.parametrize("method", ["hira", "lora"])
def test_one_subspace_is_peft_hira_or_lora(
    method: str, partition: Any, count: int, backbone: tuple[Maker, list[str]], token_ids: Tensor
) -> None:
    make, targets = backbone
    conv = "c_attn" in targets
    config: PeftConfig
    if method == "hira":
        names, alpha = ("hira_A", "hira_B"), None  # peft's HiRA has no scale
        config = HiraConfig(r=4, target_modules=targets, fan_in_fan_out=conv)
    else:
        names, alpha = ("lora_A", "lora_B"), 6.0
        config = LoraConfig(r=4, lora_alpha=6, target_modules=targets, fan_in_fan_out=conv)
    reference, factors = peft_reference(make, config, names)
    modulation: Any = "weight" if method == "hira" else "none"
    ours = attach(
        make(),
        SMoAConfig(
            r=4, num_subspaces=count, partition=partition, modulation=modulation, alpha=alpha, target_modules=targets
        ),
        seed=0,
    )
    layers = tuner_layers(ours)
    assert layers.keys() == factors.keys()
    for name, layer in layers.items():
        with torch.no_grad():
            layer.smoa_A["default"].copy_(factors[name][0])
            layer.smoa_B["default"].copy_(factors[name][1])

    (loss, logits), (expected_loss, expected) = (loss_and_logits(m, token_ids) for m in (ours, reference))
    assert (expected - make()(token_ids).logits).abs().max() > 1e-3  # the adapter does something
    torch.testing.assert_close(logits, expected, **CLOSE)
    loss.backward()
    expected_loss.backward()
    for name, layer in layers.items():
        for parameter, other in zip((layer.smoa_A["default"], layer.smoa_B["default"]), factors[name], strict=True):
            assert other.grad.abs().max() > 0
            torch.testing.assert_close(parameter.grad, other.grad, **CLOSE)


def test_energy_with_equal_factors_is_hira(backbone: tuple[Maker, list[str]], token_ids: Tensor) -> None:
    make, targets = backbone
    config = HiraConfig(r=3, target_modules=targets, fan_in_fan_out="c_attn" in targets)
    reference, factors = peft_reference(make, config, ("hira_A", "hira_B"))
    smoa = SMoAConfig(
        r=3, num_subspaces=3, partition="spectral_energy", rank_split="per_subspace", target_modules=targets
    )
    ours = attach(make(), smoa, seed=0)
    for name, layer in tuner_layers(ours).items():
        for a, b in layer.factors("default"):
            with torch.no_grad():
                a.copy_(factors[name][0])
                b.copy_(factors[name][1])
    (loss, logits), (expected_loss, expected) = (loss_and_logits(m, token_ids) for m in (ours, reference))
    torch.testing.assert_close(logits, expected, **CLOSE)
    loss.backward()
    expected_loss.backward()
    for name, layer in tuner_layers(ours).items():
        # Each subspace sees its spectral part alone; together their gradients are HiRA's.
        a_grad = layer.smoa_A["default"].grad.view(3, 3, -1).sum(0)
        b_grad = layer.smoa_B["default"].grad.view(layer.out_features, 3, 3).sum(1)
        torch.testing.assert_close(a_grad, factors[name][0].grad, **CLOSE)
        torch.testing.assert_close(b_grad, factors[name][1].grad, **CLOSE)


@pytest.mark.parametrize("count", [2, 4])
def test_grid_without_modulation_is_peft_gralora(count: int, llama: Maker, token_ids: Tensor) -> None:
    """GraLoRA (arXiv 2505.20355): its A and B hold the tiles of one column, or row, side by side."""
    targets = ["q_proj", "up_proj", "down_proj"]
    make = functools.partial(llama, intermediate_size=24)  # GraLoRA's number of parts must divide every size
    config = GraloraConfig(r=8, gralora_k=count, alpha=12, gralora_dropout=0.0, target_modules=targets)
    reference, factors = peft_reference(make, config, ("gralora_A", "gralora_B"))
    smoa = SMoAConfig(
        r=8, num_subspaces=count, partition="grid_blocks", modulation="none", alpha=12.0, target_modules=targets
    )
    ours = attach(make(), smoa, seed=0)
    rank = 8 // count

    def tile(A: Tensor, B: Tensor, index: int) -> tuple[Tensor, Tensor]:
        i, j = divmod(index, count)
        return A[j, :, i * rank : (i + 1) * rank].T, B[i, j * rank : (j + 1) * rank].T

    for name, layer in tuner_layers(ours).items():
        for index, pair in enumerate(layer.factors("default")):
            for own, other in zip(pair, tile(*factors[name], index), strict=True):
                with torch.no_grad():
                    own.copy_(other)
    (loss, logits), (expected_loss, expected) = (loss_and_logits(m, token_ids) for m in (ours, reference))
    assert (expected - make()(token_ids).logits).abs().max() > 1e-3
    torch.testing.assert_close(logits, expected, **CLOSE)
    loss.backward()
    expected_loss.backward()
    for name, layer in tuner_layers(ours).items():
        parameters = layer.smoa_A["default"], layer.smoa_B["default"]
        assert sum(p.numel() for p in parameters) == sum(p.numel() for p in factors[name])
        gradients = split_factors(*(p.grad for p in parameters), layer.plan("default"))
        for index, pair in enumerate(gradients):
            expected_pair = tile(*(p.grad for p in factors[name]), index)
            torch.testing.assert_close(pair, expected_pair, **CLOSE)


@pytest.mark.parametrize("count", [2, 3])
def test_contiguous_blocks_without_modulation_are_melora(count: int) -> None:
    """MELoRA (arXiv 2402.17263): small LoRAs side by side, so the update is block diagonal."""
    torch.manual_seed(0)
    base = nn.Linear(6 * count, 4 * count).requires_grad_(False)
    layer = SmoaLinear(base, "layer")
    layer.set_adapter("default")
    layer.update_layer(
        "default",
        SMoAConfig(r=2 * count, num_subspaces=count, partition="contiguous_blocks", modulation="none", alpha=1.0),
    )
    nn.init.normal_(layer.smoa_B["default"])
    blocks = [b @ a for a, b in layer.factors("default")]
    assert [tuple(block.shape) for block in blocks] == [(4, 6)] * count
    expected = torch.block_diag(*blocks) / (2 * count)
    torch.testing.assert_close(layer.get_delta_weight("default"), expected)
    assert torch.linalg.matrix_rank(expected) == 2 * count  # a LoRA with as many parameters has rank 2


@pytest.mark.parametrize("shape", [(8, 12), (13, 10)])
def test_the_file_melora_is_a_dense_block_diagonal_update(shape: tuple[int, int]) -> None:
    """Output and gradients in float64; sides that K does not divide have blocks of nearly equal sizes."""
    settings = {**methods()["melora"].settings, "r": 3, "alpha": 6.0}
    layer = SmoaLinear(nn.Linear(shape[1], shape[0]).double().requires_grad_(False), "layer")
    layer.set_adapter("default")
    layer.update_layer("default", SMoAConfig(**settings))
    nn.init.normal_(layer.smoa_B["default"])
    rows, cols = (list(torch.arange(side).tensor_split(2)) for side in shape)
    factors = [[p.detach().clone().requires_grad_() for p in pair] for pair in layer.factors("default")]
    assert [(len(b), a.shape[1]) for a, b in factors] == [(len(i), len(j)) for i, j in zip(rows, cols, strict=True)]
    x = torch.randn(5, shape[1], dtype=torch.float64)
    dense = torch.block_diag(*(b @ a for a, b in factors)) * 2  # alpha / r
    expected = x @ (layer.base_layer.weight + dense).T + layer.base_layer.bias
    y = layer(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    parameters = layer.smoa_A["default"], layer.smoa_B["default"]
    gradients = split_factors(*(p.grad for p in parameters), layer.plan("default"))
    for pair, reference in zip(gradients, factors, strict=True):
        torch.testing.assert_close(pair, tuple(p.grad for p in reference))
