"""KRAdapter against torch's Kronecker product row by row, in float64, and the sizes of the authors' layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smoa_lightning.adapters import KRAdapterConfig, KRAdapterLinear, attach, update_rank
from smoa_lightning.common.errors import UserError


def make_layer(out_features: int, in_features: int, config: KRAdapterConfig | None = None) -> KRAdapterLinear:
    torch.manual_seed(3)
    layer = KRAdapterLinear(nn.Linear(in_features, out_features).double().requires_grad_(False), "layer")
    layer.update_layer("default", config or KRAdapterConfig())
    layer.set_adapter("default")
    return layer


def reference(U: Tensor, V: Tensor, out_features: int, in_features: int) -> Tensor:
    """Every row by torch.kron: entry b k_1 + a of row i is V[i, b] U[i, a]."""
    larger = max(out_features, in_features)
    rows = torch.stack([torch.kron(v, u)[:larger] for u, v in zip(U, V, strict=True)])
    return rows if out_features <= in_features else rows.T


@pytest.mark.parametrize("shape", [(9, 9), (7, 30), (30, 7), (12, 16)])
@pytest.mark.parametrize("k1", [None, 2])
def test_outputs_and_gradients_are_those_of_the_equation(shape: tuple[int, int], k1: int | None) -> None:
    layer = make_layer(*shape, KRAdapterConfig(k1=k1, scaling=0.5))
    nn.init.normal_(layer.kradapter_U["default"])
    x = torch.randn(4, 5, shape[1], dtype=torch.float64)
    U, V = (getattr(layer, name)["default"].detach().clone().requires_grad_() for name in layer.adapter_layer_names)
    delta = 0.5 * reference(U, V, *shape)
    assert delta.shape == shape
    expected = layer.base_layer(x) + x @ delta.T
    y = layer(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(layer.dense_update("default"), delta)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(layer.kradapter_U["default"].grad, U.grad)
    torch.testing.assert_close(layer.kradapter_V["default"].grad, V.grad)
    assert update_rank(delta.detach()).numerical == layer.rank_bound("default") == min(shape)


@pytest.mark.parametrize(
    ("shape", "columns"),
    # floor(sqrt(min)), and as many more as cover the larger side; 768 x 1024 is the example of the authors' code
    [((768, 1024), (27, 38)), ((1024, 768), (27, 38)), ((9, 9), (3, 3)), ((10, 10), (3, 4)), ((1, 5), (1, 5))],
)
def test_sizes_are_those_of_the_authors_layer(shape: tuple[int, int], columns: tuple[int, int]) -> None:
    assert KRAdapterConfig().columns(*shape) == columns
    assert columns[0] * columns[1] >= max(shape) > columns[0] * (columns[1] - 1)


def test_starts_without_effect() -> None:
    layer = make_layer(8, 12)
    x = torch.randn(3, 12, dtype=torch.float64)
    assert torch.equal(layer(x), layer.base_layer(x))
    bound = (6 / (1 + 5**2) / layer.kradapter_V["default"].shape[1]) ** 0.5  # Kaiming-uniform with a = 5
    assert 0.8 * bound < layer.kradapter_V["default"].abs().max() <= bound


def test_bad_settings_are_one_sentence(llama: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"KRAdapterConfig.k1 is 34, but must be at most 20 for layer"):
        attach(llama(), KRAdapterConfig(k1=34, target_modules=["q_proj"]), seed=0)
    for settings, message in (({"k1": 0}, "at least 1"), ({"scaling": 0.0}, "above 0"), ({"scaling": None}, "absent")):
        with pytest.raises(UserError, match=message):
            KRAdapterConfig(**settings)  # type: ignore[arg-type]
