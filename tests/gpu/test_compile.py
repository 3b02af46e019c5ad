"""``torch.compile`` of a model with an adapter: the same logits and the same training steps as without it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smoa_lightning.adapters import attach

from ..adapters.architectures import ARCHITECTURES, inputs
from ..adapters.test_matrix import METHODS, adapter_parameters, randomise
from .conftest import KIND

# On a CPU the compiler proper is left out, which is slow there: what it is given, forward and backward, is the same.
BACKEND = "inductor" if KIND == "cuda" else "aot_eager"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the compiler warns about what it leaves to Python
]


@pytest.fixture(params=METHODS)
def model(request: pytest.FixtureRequest, device: torch.device) -> nn.Module:
    """One layer with a random adapter of every method."""
    torch._dynamo.reset()
    adapted = attach(ARCHITECTURES["llama"](num_hidden_layers=1), METHODS[request.param](), seed=0)  # type: ignore[call-arg]
    randomise(adapted)
    return adapted.to(device)


def compiled(model: nn.Module) -> Callable[..., Any]:
    return torch.compile(model, backend=BACKEND)


def given(model: nn.Module, device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in inputs(model).items()}


def test_forward(model: nn.Module, device: torch.device) -> None:
    batch = given(model.eval(), device)
    with torch.no_grad():
        torch.testing.assert_close(compiled(model)(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)


def test_training_steps(model: nn.Module, device: torch.device) -> None:
    batch, other = given(model, device), copy.deepcopy(model)
    for network, call in ((model.train(), model), (other.train(), compiled(other))):
        optimizer = torch.optim.SGD(adapter_parameters(network), lr=1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            call(**batch).logits.float().square().mean().backward()
            optimizer.step()
    for found, expected in zip(adapter_parameters(other), adapter_parameters(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
