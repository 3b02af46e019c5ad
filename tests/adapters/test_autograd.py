"""Outputs of adapted layers under autograd: changed in place, and differentiated twice."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import DebertaConfig, DebertaForSequenceClassification

from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.adapters.surm.convolution import convolve
from smoa_lightning.common.errors import UserError

from .test_matrix import METHODS, adapter_parameters, randomise

UPDATES = [name for name in METHODS if "slot" not in name and "bottleneck" not in name]


def adapted(method: str) -> nn.Module:
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(8, 8)), METHODS[method](target_modules=["0"]))
    randomise(model)
    return model


def gradients(y: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(y.square().sum(), adapter_parameters(model)))


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8), (2, 0, 8)])
@pytest.mark.parametrize("method", UPDATES)
def test_output_can_be_changed_in_place(method: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    copied, changed = adapted(method), adapted(method)
    expected = gradients((copied(x) + 1).relu(), copied)
    y = changed(x)
    y += 1
    for found, value in zip(gradients(torch.relu_(y), changed), expected, strict=True):
        torch.testing.assert_close(found, value)


def test_deberta_trains() -> None:
    """Its attention scales the output of a linear layer in place."""
    settings = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    base = DebertaForSequenceClassification(
        DebertaConfig(**settings, vocab_size=20, max_position_embeddings=16, relative_attention=True)
    )
    model = attach(base, SMoAConfig(r=4, target_modules=["in_proj", "dense"]), seed=0)
    model(input_ids=torch.arange(10).view(2, 5), labels=torch.tensor([0, 1])).loss.backward()
    trained = [p for name, p in model.named_parameters() if "smoa_B" in name]
    assert trained
    assert all(p.grad is not None and p.grad.any() for p in trained)


@pytest.mark.parametrize("method", UPDATES)
def test_second_derivative_is_right_or_refused(method: str) -> None:
    """The penalty's loss is linear in the output, so that no gradient reaches the layer that itself needs one."""
    model = adapted(method).double()
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(3, 8).requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    parameter = adapter_parameters(model)[-1]
    if method.startswith("smoa"):
        with pytest.raises(UserError, match="second derivative through a SMoA layer is not supported"):
            slope.square().sum().backward()
        return
    slope.square().sum().backward()
    step = torch.zeros_like(parameter).flatten()
    step[0] = 1e-6

    def penalty() -> Tensor:
        return torch.autograd.grad(model(x).sum(), x)[0].square().sum()

    with torch.no_grad():
        parameter.add_(step.view_as(parameter))
    above = penalty()
    with torch.no_grad():
        parameter.sub_(2 * step.view_as(parameter))
    difference = (above - penalty()) / 2e-6
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.grad.flatten()[0], difference, rtol=1e-4, atol=1e-6)


def test_second_derivative_through_a_convolution_is_refused() -> None:
    kernel, x = torch.ones(1, 1, 8, requires_grad=True), torch.ones(3, 1, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(convolve(kernel, x, ("pq", "tq", "tp")).sum(), x, create_graph=True)
    with pytest.raises(UserError, match="SURM"):
        slope.sum().backward()
