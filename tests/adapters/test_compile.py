"""``torch.compile`` of layers with a SMoA adapter: one graph without breaks, the same outputs and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.smoa.compiled import parts_of, plan_of
from smoa_lightning.adapters.smoa.scratch import memory_of_graph, scratch_like
from smoa_lightning.adapters.smoa.terms import Plan

from .test_matrix import METHODS, adapter_parameters, layers, randomise

SMOA = [name for name in METHODS if name.startswith("smoa")]
pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler warns of deprecated parts of its own


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network(config: PeftConfig, seed: int = 0) -> nn.Module:
    """A linear layer, a Conv1D and an activation in place between the two, with a random adapter."""
    torch.manual_seed(seed)
    adapted = get_peft_model(nn.Sequential(nn.Linear(6, 9), nn.ReLU(inplace=True), Conv1D(7, 9)), config)
    randomise(adapted)
    return adapted.train()


def config(method: str, **more: Any) -> PeftConfig:
    return METHODS[method](target_modules=["0", "2"], **more)


def results(model: Callable[..., Tensor], parameters: list[nn.Parameter]) -> list[Tensor]:
    x = torch.linspace(-1, 1, 2 * 3 * 6).view(2, 3, 6).requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *parameters])]


def assert_same(model: nn.Module, backend: str) -> None:
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    parameters = adapter_parameters(model)
    for found, expected in zip(results(compiled, parameters), results(model, parameters), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", SMOA)
def test_graph_and_gradients_are_those_of_python(method: str) -> None:
    assert_same(network(config(method)), "aot_eager")


def test_separate_products_and_dropout() -> None:
    assert_same(network(config("smoa_blocks", forward="split", alpha=3.0)), "aot_eager")
    torch._dynamo.reset()
    assert_same(network(config("smoa_grid", dropout=0.5)).eval(), "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("method", SMOA)
def test_compiled_to_machine_code(method: str) -> None:
    assert_same(network(config(method)), "inductor")


def test_under_autocast() -> None:
    model = network(config("smoa_energy"))
    compiled, parameters = torch.compile(model, backend="aot_eager", fullgraph=True), adapter_parameters(model)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = results(compiled, parameters), results(model, parameters)
    assert found[0].dtype == torch.bfloat16
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=2e-2, atol=2e-2)


def test_graph_uses_the_orders_of_a_state_that_is_loaded_later() -> None:
    model, other = (network(METHODS["smoa_noise"](target_modules=["0", "2"], seed=seed)) for seed in (0, 1))
    compiled, x = torch.compile(model, backend="aot_eager", fullgraph=True), torch.ones(2, 3, 6)
    compiled(x)
    state = copy.deepcopy(get_peft_model_state_dict(other))
    set_peft_model_state_dict(model, state)
    assert not torch.equal(layers(model)[0].smoa_row_order["default"], torch.arange(9))
    torch.testing.assert_close(compiled(x), other(x))


@pytest.mark.parametrize("method", SMOA)
def test_parts_of_a_plan_give_the_plan(method: str) -> None:
    plan: Plan = layers(network(config(method)))[0].plan("default")
    tensors, numbers = parts_of(plan)
    again = plan_of(tensors, numbers)
    assert (again.ranks, again.weighted) == (plan.ranks, plan.weighted)
    assert [id(tensor) for tensor in parts_of(again)[0]] == [id(tensor) for tensor in tensors]
    if plan.grid is not None:
        assert again.grid is not None
        assert (again.grid.shapes, again.grid.rows) == (plan.grid.shapes, plan.grid.rows)


def test_operators_of_a_graph_take_no_shared_memory_on_a_gpu() -> None:
    weight = torch.ones(3, 4)
    assert scratch_like(weight, weight.dtype, 0) is scratch_like(weight, weight.dtype, 0)
    with memory_of_graph(torch.device("cuda")):
        first, second = (scratch_like(weight, weight.dtype, 0) for _ in range(2))
    assert first.data_ptr() != second.data_ptr()
    assert first.shape == weight.shape
