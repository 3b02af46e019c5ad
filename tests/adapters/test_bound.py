"""When a layer compares an adapter's fingerprint with its base weight anew, and when it relies on the last time."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import nn

from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.smoa import SmoaLinear
from smoa_lightning.adapters.tuner import bound
from smoa_lightning.common.errors import UserError


def prepared(base: nn.Module) -> SmoaLinear:
    layer = SmoaLinear(base.requires_grad_(False), "layer")
    layer.set_adapter("default")
    layer.update_layer("default", SMoAConfig(r=4, num_subspaces=2))
    nn.init.normal_(layer.smoa_B["default"])
    layer.prepare("default")
    return layer


def load_again(layer: nn.Module) -> None:
    layer.load_state_dict(
        {name: tensor for name, tensor in layer.state_dict().items() if "smoa_" in name}, strict=False
    )


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(12, 8)


def replaced(layer: SmoaLinear) -> None:
    layer.base_layer.weight = nn.Parameter(torch.randn(8, 12), requires_grad=False)


def written(layer: SmoaLinear) -> None:
    with torch.no_grad():
        layer.base_layer.weight[1, 2] += 1


def pointed_elsewhere(layer: SmoaLinear) -> None:
    layer.base_layer.weight.data = torch.randn(8, 12)  # the same parameter, of the same version


@pytest.mark.parametrize("swap", [replaced, written, pointed_elsewhere])
def test_a_swapped_base_weight_is_refused(swap: Callable[[SmoaLinear], None]) -> None:
    layer = prepared(linear())
    load_again(layer)
    swap(layer)
    with pytest.raises(UserError, match="does not belong to this backbone: at layer layer"):
        load_again(layer)


@pytest.mark.parametrize("whole", [True, False], ids=["another parameter", "its data"])
def test_another_weight_in_the_same_memory_is_refused(whole: bool) -> None:
    memory = numpy.random.default_rng(0).normal(size=(8, 12)).astype(numpy.float32)
    base = linear()
    base.weight = nn.Parameter(torch.from_numpy(memory))
    layer = prepared(base)
    before = base.weight.data_ptr(), base.weight._version, base.weight.dtype
    memory[:] = memory[::-1].copy()
    if whole:
        base.weight = nn.Parameter(torch.from_numpy(memory), requires_grad=False)
    else:
        base.weight.data = torch.from_numpy(memory)
    assert (base.weight.data_ptr(), base.weight._version, base.weight.dtype) == before
    with pytest.raises(UserError, match="does not belong to this backbone"):
        load_again(layer)


def test_an_unchanged_weight_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = prepared(linear())

    def taken(*_: object) -> torch.Tensor:
        raise AssertionError("the fingerprint was computed again")

    monkeypatch.setattr(bound, "fingerprint", taken)
    layer.prefetch_fingerprint("default")
    load_again(layer)


@pytest.mark.parametrize("swap", [None, replaced, written, pointed_elsewhere])
def test_a_prefetched_fingerprint_is_used_for_its_weight_only(
    swap: Callable[[SmoaLinear], None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = prepared(linear()).state_dict()
    layer = SmoaLinear(linear().requires_grad_(False), "layer")
    layer.set_adapter("default")
    layer.update_layer("default", SMoAConfig(r=4, num_subspaces=2))
    layer.prefetch_fingerprint("default")
    taken: list[torch.Tensor] = []
    fingerprint = bound.fingerprint
    monkeypatch.setattr(bound, "fingerprint", lambda *given: taken.append(given[0]) or fingerprint(*given))
    adapter = {name: tensor for name, tensor in state.items() if "smoa_" in name}
    if swap is None:
        layer.load_state_dict(adapter, strict=False)
        assert not taken
        return
    swap(layer)
    with pytest.raises(UserError, match="does not belong to this backbone"):
        layer.load_state_dict(adapter, strict=False)
    assert len(taken) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_weight_made_in_inference_mode_works(mode: Callable[[], torch.no_grad]) -> None:
    with torch.inference_mode():
        base = linear()
    assert base.weight.is_inference()
    layer, x = prepared(base), torch.randn(3, 12)
    load_again(layer)
    with mode():
        dense = base.weight.double() + layer.get_delta_weight("default").double()
        expected = x.double() @ dense.T + base.bias.double()
        torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        base.weight[1, 2] += 1
    with pytest.raises(UserError, match="does not belong to this backbone"):
        load_again(layer)


def through_pickle(layer: SmoaLinear) -> SmoaLinear:
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
def test_a_prepared_layer_can_be_copied_and_pickled(duplicate: Callable[[SmoaLinear], SmoaLinear]) -> None:
    layer, x = prepared(linear()), torch.randn(3, 12)
    twin = duplicate(layer)
    assert torch.equal(twin(x), layer(x))
    load_again(twin)
    replaced(twin)
    with pytest.raises(UserError, match="does not belong to this backbone"):
        load_again(twin)
    load_again(layer)
