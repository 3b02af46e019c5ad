"""HyperAdapt against its equation, and against peft's HiRA: a b^T - 1 is a matrix of rank 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import HiraConfig, PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters import HyperAdaptConfig, HyperAdaptLinear, attach, update_rank
from smoa_lightning.common.errors import UserError

Maker = Callable[..., Any]
OUT, IN = 13, 10


def make_layer(
    conv: bool = False, bias: bool = True, dtype: torch.dtype = torch.float64, adapters: tuple[str, ...] = ("default",)
) -> HyperAdaptLinear:
    torch.manual_seed(3)
    base = Conv1D(OUT, IN) if conv else nn.Linear(IN, OUT, bias=bias)
    nn.init.normal_(base.weight)
    if bias:
        nn.init.normal_(base.bias)
    layer = HyperAdaptLinear(base.to(dtype).requires_grad_(False), "layer")
    for name in adapters:
        layer.update_layer(name, HyperAdaptConfig())
        nn.init.normal_(layer.hyperadapt_a[name])
        nn.init.normal_(layer.hyperadapt_b[name])
    layer.set_adapter(list(adapters))
    return layer


def rescaled(layer: HyperAdaptLinear, name: str) -> Tensor:
    weight = layer.base_layer.weight.T if isinstance(layer.base_layer, Conv1D) else layer.base_layer.weight
    return torch.diag(layer.hyperadapt_a[name]) @ weight @ torch.diag(layer.hyperadapt_b[name])


@pytest.mark.parametrize(("conv", "bias"), [(False, True), (False, False), (True, True)])
def test_layer_is_the_equation(conv: bool, bias: bool) -> None:
    layer = make_layer(conv, bias)
    if bias:
        layer.base_layer.bias.requires_grad_(True)
    x = torch.randn(3, 4, IN, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 4, OUT, dtype=torch.float64)
    expected = x @ rescaled(layer, "default").T
    if bias:
        expected = expected + layer.base_layer.bias
    inputs = [x, *(p for p in layer.parameters() if p.requires_grad)]
    assert sum(p.numel() for p in inputs[1:]) == OUT + IN + bias * OUT
    found = layer(x)
    torch.testing.assert_close(found, expected)
    for gradient, reference in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(gradient, reference)
    weight = layer.unmerged_weight()
    torch.testing.assert_close(layer.dense_update("default"), (rescaled(layer, "default") - weight).detach())


def test_gradcheck() -> None:
    layer = make_layer()
    a, b = layer.hyperadapt_a["default"], layer.hyperadapt_b["default"]
    x = torch.randn(2, IN, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, a, b))


def test_one_adapter_is_one_product_and_several_add_up() -> None:
    calls: list[Tensor] = []
    layer = make_layer(adapters=("first", "second", "third"))
    layer.base_layer.register_forward_hook(lambda module, inputs, output: calls.append(output))
    x = torch.randn(4, IN, dtype=torch.float64)
    weight = layer.unmerged_weight()
    total = weight + sum(rescaled(layer, name) - weight for name in ("first", "second", "third"))
    torch.testing.assert_close(layer(x), x @ total.T + layer.base_layer.bias)
    assert len(calls) == 4
    layer.set_adapter("second")
    calls.clear()
    torch.testing.assert_close(layer(x), x @ rescaled(layer, "second").T + layer.base_layer.bias)
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_starts_exactly_as_the_frozen_layer(dtype: torch.dtype) -> None:
    layer = HyperAdaptLinear(nn.Linear(IN, OUT).to(dtype).requires_grad_(False), "layer")
    layer.update_layer("default", HyperAdaptConfig())
    layer.set_adapter("default")
    assert {p.dtype for p in layer.parameters() if p.requires_grad} == {torch.float32}
    x = torch.randn(5, IN, dtype=dtype)
    assert torch.equal(layer(x), layer.base_layer(x))


def test_update_has_full_rank_and_at_most_twice_that_of_the_weight() -> None:
    layer = make_layer()
    assert update_rank(layer.dense_update("default")).numerical == IN == layer.rank_bound("default")
    low = torch.randn(OUT, 2, dtype=torch.float64) @ torch.randn(2, IN, dtype=torch.float64)
    layer.base_layer.weight.data.copy_(low)
    assert update_rank(layer.dense_update("default")).numerical == 4


def test_is_peft_hira_of_rank_two(llama: Maker, token_ids: Tensor) -> None:
    """diag(a) W diag(b) - W = W o (a b^T - 1 1^T): B = (a, -1), A = (b, 1)."""
    targets = ["q_proj", "up_proj", "down_proj"]
    reference = attach(llama(), HiraConfig(r=2, target_modules=targets), seed=0)
    ours = attach(llama(), HyperAdaptConfig(target_modules=targets), seed=0)
    others = [m for m in reference.modules() if hasattr(m, "hira_A")]
    layers = [m for m in ours.modules() if isinstance(m, HyperAdaptLinear)]
    assert len(layers) == 6
    for layer, other in zip(layers, others, strict=True):
        a, b = layer.hyperadapt_a["default"], layer.hyperadapt_b["default"]
        with torch.no_grad():
            a.add_(torch.randn(a.shape) * 0.3)
            b.add_(torch.randn(b.shape) * 0.3)
            other.hira_B["default"].copy_(torch.stack([a, -torch.ones_like(a)], 1))
            other.hira_A["default"].copy_(torch.stack([b, torch.ones_like(b)]))
    found, expected = (model(token_ids, labels=token_ids) for model in (ours, reference))
    assert (expected.logits - llama()(token_ids).logits).abs().max() > 1e-2
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    found.loss.backward()
    expected.loss.backward()
    for layer, other in zip(layers, others, strict=True):
        for own, theirs in (("a", other.hira_B["default"].grad[:, 0]), ("b", other.hira_A["default"].grad[0])):
            gradient = getattr(layer, f"hyperadapt_{own}")["default"].grad
            torch.testing.assert_close(gradient, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_another_base_is_refused(low_cpu_mem_usage: bool, llama: Maker, tmp_path: Path) -> None:
    """The update is made of W, so an adapter belongs to the backbone whose fingerprint it carries."""
    attach(llama(), HyperAdaptConfig(), seed=0).save_pretrained(tmp_path)
    prints = {n: t for n, t in load_file(tmp_path / "adapter_model.safetensors").items() if "fingerprint" in n}
    assert len(prints) == 10
    assert all(t.any() for t in prints.values())
    PeftModel.from_pretrained(llama(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    with pytest.raises(UserError, match="does not belong to this backbone: at layer"):
        PeftModel.from_pretrained(llama(seed=1), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
