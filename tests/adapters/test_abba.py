"""ABBA against its equation in float64, LoHa of peft with the same factors, and the exact decomposition of W."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters import AbbaConfig, AbbaLinear, attach, update_rank
from smoa_lightning.adapters.abba.layer import hadamard_update, khatri_rao_product, leading_factors
from smoa_lightning.common.errors import UserError

OUT, IN = 13, 10


def make_layer(config: AbbaConfig, conv: bool = False, width: tuple[int, int] = (OUT, IN)) -> AbbaLinear:
    torch.manual_seed(3)
    base = Conv1D(*width) if conv else nn.Linear(*width[::-1])
    nn.init.normal_(base.weight)
    layer = AbbaLinear(base.double().requires_grad_(False), "layer")
    layer.update_layer("default", config)
    layer.set_adapter("default")
    return layer


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("r", [2, 7])  # with 7 the dense product is cheaper
@pytest.mark.parametrize("alpha", [None, 3.0])
def test_outputs_and_gradients_are_those_of_the_equation(r: int, alpha: float | None, conv: bool) -> None:
    layer = make_layer(AbbaConfig(r=r, alpha=alpha), conv)
    nn.init.normal_(layer.abba_B2["default"])
    x = torch.randn(4, 5, IN, dtype=torch.float64)
    names = layer.adapter_layer_names
    A1, B1, A2, B2 = (getattr(layer, name)["default"].detach().clone().requires_grad_() for name in names)
    delta = torch.einsum("oi,ij,ok,kj->oj", B1, A1, B2, A2) * (r if alpha is None else alpha**2 / r)
    expected = layer.base_layer(x) + x @ delta.T
    y = layer(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(layer.dense_update("default"), delta)
    y.square().sum().backward()
    expected.square().sum().backward()
    for name, reference in zip(names, (A1, B1, A2, B2), strict=True):
        torch.testing.assert_close(getattr(layer, name)["default"].grad, reference.grad)
    assert update_rank(layer.dense_update("default")).numerical == layer.rank_bound("default") == min(r * r, 10)


def test_starts_at_the_leading_singular_directions_and_without_effect() -> None:
    layer = make_layer(AbbaConfig(r=4), width=(60, 40))
    weight = layer.unmerged_weight()
    product = layer.abba_B1["default"] @ layer.abba_A1["default"]
    least = torch.linalg.svdvals(weight)[4:].norm()  # Eckart and Young
    assert least <= (weight - product).norm() <= least * (1 + 1e-6)
    gram_a = layer.abba_A1["default"] @ layer.abba_A1["default"].T
    gram_b = layer.abba_B1["default"].T @ layer.abba_B1["default"]
    torch.testing.assert_close(gram_a, gram_b)  # each has the square root of S
    assert layer.abba_A2["default"].abs().min() > 0
    x = torch.randn(3, 40, dtype=torch.float64)
    assert torch.equal(layer(x), layer.base_layer(x))


def test_a_decomposition_of_all_directions_is_exact() -> None:
    weight = torch.randn(9, 6, dtype=torch.float64)
    A, B = leading_factors(weight, 6)
    torch.testing.assert_close(B @ A, weight)


def test_both_products_are_equal() -> None:
    factors = [torch.randn(*shape, dtype=torch.float64) for shape in ((3, 8), (5, 3), (2, 8), (5, 2))]
    x = torch.randn(4, 8, dtype=torch.float64)
    torch.testing.assert_close(khatri_rao_product(x, *factors), x @ hadamard_update(*factors).T)


def test_equals_pefts_loha_with_the_same_factors(llama: Callable[..., Any], token_ids: Tensor) -> None:
    """LoHa (arXiv 2108.06098) has the same product, another start and the scale alpha / r."""
    targets = ["q_proj", "up_proj", "down_proj"]
    loha = attach(llama(), peft.LoHaConfig(r=3, alpha=3, target_modules=targets, init_weights=False), seed=0)
    ours = attach(llama(), AbbaConfig(r=3, alpha=3.0**0.5, target_modules=targets), seed=0)
    pairs = {"hada_w1_a": "abba_B1", "hada_w1_b": "abba_A1", "hada_w2_a": "abba_B2", "hada_w2_b": "abba_A2"}
    for layer, other in zip(layers(ours), layers(loha), strict=True):
        for theirs, own in pairs.items():
            getattr(layer, own)["default"].data.copy_(getattr(other, theirs)["default"])
    with torch.no_grad():
        expected, plain = loha(token_ids).logits, llama()(token_ids).logits
        torch.testing.assert_close(ours(token_ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert (expected - plain).abs().max() > 1e-2


def layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer)]


def test_bad_settings_are_one_sentence(llama: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"AbbaConfig.r is 21, but layer .* has only 10 singular directions"):
        attach(llama(), AbbaConfig(r=21, target_modules=["k_proj"]), seed=0)
    for settings, message in (({"r": 0}, "at least 1"), ({"alpha": 0.0}, "above 0"), ({"bias": "some"}, "one of none")):
        with pytest.raises(UserError, match=message):
            AbbaConfig(**settings)  # type: ignore[arg-type]
