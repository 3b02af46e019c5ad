"""The fast paths against a dense float64 computation, in the dtypes of training; and both ways of the forward."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import HiraConfig, get_peft_model
from torch import Tensor, nn

from smoa_lightning.adapters.smoa import SmoaLinear, gradients
from smoa_lightning.adapters.smoa.terms import split_factors

from .test_formula import MODULATIONS, PARTITIONS, SPLITS, dense_update, make_layer, settings

SHAPE = (61, 45)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / expected.norm())


def through(layer: SmoaLinear, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The output and the gradients of x, A and B."""
    x = x.clone().requires_grad_(True)
    y = layer(x)
    factors = [layer.smoa_A["default"], layer.smoa_B["default"]]
    return [y, *torch.autograd.grad(y, [x, *factors], grad)]


def dense(layer: SmoaLinear, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The same by autograd through the dense formula in float64, from the same rounded numbers."""
    x = x.double().requires_grad_(True)
    factors = [layer.smoa_A["default"], layer.smoa_B["default"]]
    wide = [factor.detach().double().requires_grad_(True) for factor in factors]
    weight, bias = layer.base_layer.weight.double(), layer.base_layer.bias.double()
    delta = dense_update(layer, layer.configs["default"], split_factors(*wide, layer.plan("default")))
    y = nn.functional.linear(x, weight + delta, bias)
    return [y, *torch.autograd.grad(y, [x, *wide], grad.double())]


@pytest.mark.parametrize("gather", [True, False], ids=["gathered", "dense"])
@pytest.mark.parametrize("forward", ["merged", "split"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_output_and_gradients_equal_the_dense_computation_in_float64(
    partition: str, modulation: str, dtype: torch.dtype, forward: str, gather: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "gather_pays", lambda *_: gather)
    for split in SPLITS[:2]:
        layer = make_layer(settings(partition, modulation, split, forward=forward), dtype=dtype, shape=SHAPE)
        nn.init.normal_(layer.smoa_B["default"], std=0.3)
        x, grad = (torch.randn(7, 5, size).to(dtype) for size in (SHAPE[1], SHAPE[0]))
        for found, expected in zip(through(layer, x, grad), dense(layer, x, grad), strict=True):
            assert relative(found, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_split_keeps_most_of_an_update_that_merging_rounds_away(partition: str) -> None:
    """Outputs are rounded either way, but that averages out over inputs; what is lost in W + s D stays lost."""
    lost = {}
    for forward in ("merged", "split"):
        config = settings(partition, "weight", SPLITS[0], forward=forward)
        layer = make_layer(config, dtype=torch.bfloat16, shape=SHAPE)
        layer.base_layer.bias.data.zero_()
        weight = layer.base_layer.weight.double()
        changed = (delta := dense_update(layer, config, layer.factors("default")).detach()) != 0
        share = 3e-3 * weight[changed].norm() / delta.norm()  # about the rounding of bfloat16, 2^-9
        layer.smoa_B["default"].data.mul_(share)
        x = torch.randn(20_000, SHAPE[1]).bfloat16()
        with torch.no_grad():
            effect = layer(x).double() - x.double() @ weight.T
        seen = torch.linalg.lstsq(x.double(), effect).solution.T  # the update that the outputs tell of
        lost[forward] = relative(seen, delta * share)
    assert lost["merged"] > 0.3
    assert lost["split"] < 0.5 * lost["merged"]


def test_split_rounds_as_hira_of_peft_does() -> None:
    """The same factors under ``split`` and in peft's HiRA, which adds its update by a second product as well."""
    model = nn.Sequential(nn.Linear(SHAPE[1], SHAPE[0], bias=False)).bfloat16()
    hira = get_peft_model(copy.deepcopy(model), HiraConfig(r=4, target_modules=["0"]))
    smoa = get_peft_model(model, settings("none", "weight", SPLITS[0], forward="split", target_modules=["0"]))
    theirs, ours = hira.base_model.model[0], smoa.base_model.model[0]
    nn.init.normal_(theirs.hira_B["default"], std=1e-2)
    ours.smoa_A["default"].data.copy_(theirs.hira_A["default"])
    ours.smoa_B["default"].data.copy_(theirs.hira_B["default"])
    x = torch.randn(500, SHAPE[1]).bfloat16()
    with torch.no_grad():
        exact = x.double() @ (model[0].base_layer.weight.double() + ours.get_delta_weight("default").double()).T
        errors = [relative(layer(x), exact) for layer in (ours, theirs)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
