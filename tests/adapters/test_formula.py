"""Layers against a dense float64 formula written here a second time, and gradients against finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.smoa import SmoaLinear, functional, gradients, scratch, subspaces
from smoa_lightning.adapters.smoa.config import BLOCK_PARTITIONS

PARTITIONS = ["none", "spectral_energy", "spectral_blocks", "contiguous_blocks", "random_blocks", "grid_blocks"]
MODULATIONS = ["weight", "none", "random"]
SPLITS: list[dict[str, Any]] = [
    {"r": 4, "num_subspaces": 2},
    {"r": 5, "num_subspaces": 3, "alpha": 2.0},
    {"r": 2, "num_subspaces": 3, "rank_split": "per_subspace"},
    {"r": 4, "num_subspaces": 2, "branch_ranks": [1, 3]},
]
OUT, IN = 13, 10


def settings(partition: str, modulation: str, split: dict[str, Any], **more: Any) -> SMoAConfig:
    if partition == "none":
        split = {"r": split["r"], "num_subspaces": 1, "alpha": split.get("alpha")}
    if partition == "grid_blocks":
        split = {key: value for key, value in split.items() if key != "branch_ranks"}  # its tiles share r evenly
    return SMoAConfig(partition=partition, modulation=modulation, **split, **more)  # type: ignore[arg-type]


def make_layer(
    config: SMoAConfig, conv: bool = False, dtype: torch.dtype = torch.float64, shape: tuple[int, int] = (OUT, IN)
) -> SmoaLinear:
    torch.manual_seed(3)
    base = Conv1D(shape[0], shape[1]) if conv else nn.Linear(shape[1], shape[0])
    nn.init.normal_(base.weight)
    nn.init.normal_(base.bias)
    layer = SmoaLinear(base.to(dtype).requires_grad_(False), "layer")
    layer.set_adapter("default")
    layer.update_layer("default", config)
    nn.init.normal_(layer.smoa_B["default"])
    return layer


def dense_update(layer: SmoaLinear, config: SMoAConfig, factors: list[tuple[Tensor, Tensor]]) -> Tensor:
    """s * sum_k P_k[(B_k A_k) o M_k], straight from the definition."""
    weight = layer.base_layer.weight.detach().double()
    weight = weight.T if isinstance(layer.base_layer, Conv1D) else weight
    u, s, vt = (torch.from_numpy(part) for part in np.linalg.svd(weight.numpy(), full_matrices=False))
    count, q = config.num_subspaces, len(s)
    total = torch.zeros_like(weight)
    noise = [torch.ones_like(weight)] * count
    if config.modulation == "random":
        seed = int(layer.smoa_noise_seed["default"])
        noise = [
            subspaces.uniform_modulation(seed + k, (layer.out_features, layer.in_features), weight.dtype, weight.device)
            for k in range(count)
        ]
    if config.partition in ("none", "spectral_energy"):
        share = {"l1": s, "l2": s**2, "count": torch.ones(q)}[config.energy].cumsum(0)
        bounds = [0] + [int((share / share[-1] < k / count - 1e-9).sum()) + 1 for k in range(1, count)] + [q]
        for k, (a, b) in enumerate(factors):
            part = slice(bounds[k], bounds[k + 1])
            spectral = u[:, part] * s[part] @ vt[part]
            total = total + (b @ a) * (spectral if config.modulation == "weight" else noise[k])
    else:
        rows, cols = torch.arange(layer.out_features), torch.arange(layer.in_features)
        if config.partition == "spectral_blocks":
            index = torch.arange(q, dtype=torch.float64)
            rows, cols = (((e @ index) / e.sum(1)).argsort() for e in (u**2 * s**2, vt.T**2 * s**2))
        elif config.partition == "random_blocks":
            rows, cols = layer.smoa_row_order["default"].long(), layer.smoa_col_order["default"].long()
        pairs = zip(np.array_split(rows, count), np.array_split(cols, count), strict=True)
        if config.partition == "grid_blocks":
            pairs = itertools.product(np.array_split(rows, count), np.array_split(cols, count))
        for (a, b), (i, j) in zip(factors, pairs, strict=True):
            block = torch.meshgrid(i.sort().values, j.sort().values, indexing="ij")
            m = weight if config.modulation == "weight" else noise[0]
            total = total.index_put(block, (b @ a) * m[block], accumulate=True)
    return total * (config.alpha / config.r if config.alpha else 1.0)


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("split", SPLITS, ids=["even", "odd", "per_subspace", "branch_ranks"])
@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_layer_is_the_dense_formula(partition: str, modulation: str, split: dict[str, Any], conv: bool) -> None:
    config = settings(partition, modulation, split)
    layer = make_layer(config, conv)
    A, B = layer.smoa_A["default"], layer.smoa_B["default"]
    layer.base_layer.bias.requires_grad_(True)
    x = torch.randn(3, 4, IN, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 4, OUT, dtype=torch.float64)

    delta = dense_update(layer, config, layer.factors("default"))
    base = layer.base_layer.weight.T if conv else layer.base_layer.weight
    expected = x @ (base + delta).T + layer.base_layer.bias
    inputs = (x, A, B, layer.base_layer.bias)
    expected_gradients = torch.autograd.grad(expected, inputs, upstream)

    found = layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(found, inputs, upstream)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(layer.dense_update("default"), delta.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_number_of_trainable_parameters(partition: str) -> None:
    """r(d_in + d_out), or a K-th of that for blocks on the diagonal."""
    layer = make_layer(settings(partition, "weight", {"r": 4, "num_subspaces": 2}), shape=(12, 10))
    count = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    assert count == (4 * 22 // 2 if partition in BLOCK_PARTITIONS else 4 * 22)


@pytest.mark.parametrize(("r", "count"), [(5, 3), (7, 4), (3, 3)])
def test_a_grid_of_any_number_of_parts_has_the_parameters_of_lora(r: int, count: int) -> None:
    layer = make_layer(SMoAConfig(r=r, num_subspaces=count, partition="grid_blocks"), shape=(13, 11))
    assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == r * (13 + 11)
    assert len(layer.factors("default")) == count**2


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_gradcheck(partition: str, modulation: str, dropout: float) -> None:
    layer = make_layer(settings(partition, modulation, SPLITS[1], dropout=dropout), shape=(6, 7)).train()
    plan, scaling = layer.plan("default"), layer.configs["default"].scaling
    weight, bias = layer.base_layer.weight, layer.base_layer.bias.detach().requires_grad_(True)
    A, B = (p.detach().clone().requires_grad_(True) for p in (layer.smoa_A["default"], layer.smoa_B["default"]))
    x = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)

    def fused(x: Tensor, bias: Tensor, A: Tensor, B: Tensor) -> Tensor:
        if not dropout:
            return functional.smoa_linear(x, weight, bias, A, B, plan, scaling)
        torch.manual_seed(0)  # the same mask at every evaluation
        update = functional.smoa_linear(layer.dropouts["default"](x), weight, None, A, B, plan, scaling, False)
        return nn.functional.linear(x, weight, bias) + update

    assert torch.autograd.gradcheck(fused, (x, bias, A, B))


@pytest.mark.parametrize("partition", ["none", "spectral_energy", "contiguous_blocks"])
def test_dropout_applies_to_the_update_alone(partition: str) -> None:
    config = settings(partition, "weight", SPLITS[1], dropout=0.5)
    layer = make_layer(config).train()
    x = torch.randn(6, IN, dtype=torch.float64)
    torch.manual_seed(5)
    found = layer(x)
    torch.manual_seed(5)
    dropped = nn.functional.dropout(x, 0.5)
    delta = dense_update(layer, config, layer.factors("default"))
    torch.testing.assert_close(found, layer.base_layer(x) + dropped @ delta.T)
    layer.eval()
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ delta.T)


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("modulation", MODULATIONS)
def test_both_ways_to_the_gradient_of_blocks_agree(
    modulation: str, conv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer(settings("spectral_blocks", modulation, SPLITS[1]), conv)
    x = torch.randn(6, IN, dtype=torch.float64)
    found = []
    for gather in (True, False):
        monkeypatch.setattr(gradients, "gather_pays", lambda *_, gather=gather: gather)
        found.append(
            torch.autograd.grad(layer(x).square().sum(), list(layer.smoa_A.values()) + list(layer.smoa_B.values()))
        )
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


@pytest.fixture
def saved() -> Iterator[list[Tensor]]:
    """Every tensor that autograd keeps for backward."""
    tensors: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield tensors


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_nothing_dense_is_saved_for_backward(partition: str, dropout: float, conv: bool, saved: list[Tensor]) -> None:
    layer = make_layer(settings(partition, "weight", SPLITS[0], dropout=dropout), conv).train()
    layer(torch.randn(3, IN, dtype=torch.float64, requires_grad=True))
    assert saved
    own = layer.base_layer.weight.untyped_storage().data_ptr()
    dense = [t for t in saved if t.numel() >= OUT * IN and t.untyped_storage().data_ptr() != own]
    assert not dense, [tuple(t.shape) for t in dense]


def test_inputs_are_not_saved_when_the_adapter_is_frozen(saved: list[Tensor]) -> None:
    layer = make_layer(settings("none", "weight", SPLITS[0])).requires_grad_(False)
    x = torch.randn(3, IN, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert all(t.shape != x.shape for t in saved)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, (layer.base_layer.weight + layer.dense_update("default")).sum(0).expand(3, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_merged_weight_is_the_one_that_forward_multiplies_with(partition: str, dtype: torch.dtype) -> None:
    layer = make_layer(settings(partition, "weight", SPLITS[1]), dtype=dtype)
    assert layer.smoa_A["default"].dtype == torch.float32
    identity = torch.eye(IN, dtype=dtype)
    rows = layer(identity) - layer.base_layer.bias
    layer.merge()
    torch.testing.assert_close(rows, layer.base_layer(identity) - layer.base_layer.bias, rtol=0, atol=0)


def test_scratch_made_in_inference_serves_training(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_layer(settings("none", "weight", SPLITS[0]))
    monkeypatch.setattr(scratch, "_scratch", scratch._Scratch())  # nothing is there from before
    with torch.inference_mode():
        layer(torch.randn(2, IN, dtype=torch.float64))
    layer(torch.randn(2, IN, dtype=torch.float64)).sum().backward()
    assert layer.smoa_A["default"].grad is not None


def test_output_follows_every_parameter_change() -> None:
    layer = make_layer(settings("spectral_energy", "weight", SPLITS[0])).eval()
    x = torch.randn(2, IN, dtype=torch.float64)
    with torch.no_grad():
        first = layer(x)
        layer.smoa_B["default"].data.mul_(2)
        second = layer(x)
    plain = layer.base_layer(x)
    torch.testing.assert_close(second - plain, 2 * (first - plain))


def test_autocast_computes_in_its_dtype_and_gives_float32_gradients() -> None:
    layer = make_layer(settings("spectral_blocks", "weight", SPLITS[0]), dtype=torch.float32)
    x = torch.randn(4, IN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == layer.base_layer(x).dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.smoa_B["default"].grad is not None
    assert layer.smoa_B["default"].grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.1)


def test_threads_do_not_share_scratch() -> None:
    """Two layers of one shape run in two threads at once and must not see each other's weights."""
    from concurrent.futures import ThreadPoolExecutor

    layers = [make_layer(settings("none", "weight", SPLITS[0])) for _ in range(2)]
    layers[1].base_layer.weight.data.neg_()
    x = torch.randn(4, IN, dtype=torch.float64)
    expected = [layer(x).detach() for layer in layers]

    def run(index: int) -> bool:
        return all(torch.equal(layers[index](x), expected[index]) for _ in range(300))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(run, range(2)))


class CountTokenProducts(TorchDispatchMode):
    """Count the matrix products in which the number of tokens is one of the sizes."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.count = tokens, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        if "mm" in func.__name__ and any(self.tokens in tensor.shape for tensor in tensors):
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("dropout", "training", "products"), [(0.0, True, 1), (0.5, False, 1), (0.5, True, 2)])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_forward_is_one_product_unless_dropout_acts(
    partition: str, dropout: float, training: bool, products: int
) -> None:
    layer = make_layer(settings(partition, "weight", SPLITS[1], dropout=dropout)).train(training)
    layer.plan("default")
    with CountTokenProducts(tokens=97) as counter:
        layer(torch.randn(97, IN, dtype=torch.float64))
    assert counter.count == products
