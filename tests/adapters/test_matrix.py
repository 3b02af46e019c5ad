"""Every method of ours on every family of backbones: what any peft tuner must do. A method is one line in METHODS."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn

from smoa_lightning.adapters import (
    AbbaConfig,
    BottleneckConfig,
    HyperAdaptConfig,
    KRAdapterConfig,
    MoraConfig,
    SMoAConfig,
    SurmConfig,
    attach,
)
from smoa_lightning.adapters.tuner import AdapterLayer, SlotLayer, UpdateLayer
from smoa_lightning.common.errors import UserError

from .architectures import ARCHITECTURES, VISION, inputs, logits

METHODS: dict[str, Callable[..., PeftConfig]] = {
    "smoa_none": lambda **more: SMoAConfig(r=4, num_subspaces=1, partition="none", **more),
    "smoa_blocks": lambda **more: SMoAConfig(r=4, **more),
    "smoa_energy": lambda **more: SMoAConfig(r=4, partition="spectral_energy", **more),
    "smoa_noise": lambda **more: SMoAConfig(r=4, partition="random_blocks", modulation="random", **more),
    "smoa_grid": lambda **more: SMoAConfig(r=4, partition="grid_blocks", **more),
    "mora_sharing": lambda **more: MoraConfig(r=2, **more),
    "mora_rotation": lambda **more: MoraConfig(r=2, type="rotation", **more),
    "hyperadapt": lambda **more: HyperAdaptConfig(**more),
    "abba": lambda **more: AbbaConfig(r=2, alpha=3.0, **more),
    "kradapter": lambda **more: KRAdapterConfig(**more),
    "surm_circulant": lambda **more: SurmConfig(structure="circulant", **more),
    "surm_toeplitz": lambda **more: SurmConfig(structure="toeplitz", **more),
    "surm_kronecker": lambda **more: SurmConfig(structure="kronecker", **more),
    "surm_ldr": lambda **more: SurmConfig(structure="ldr", displacement_rank=2, block_size=7, **more),
    "surm_slot": lambda **more: SurmConfig(structure="toeplitz", slot="adapter", **more),
    "bottleneck_houlsby": lambda **more: BottleneckConfig(bottleneck_size=3, **more),
    "bottleneck_pfeiffer": lambda **more: BottleneckConfig(bottleneck_size=3, placement="pfeiffer", **more),
}
# What does not depend on the family is tried on one model of each kind (nn.Linear, Conv1D, experts, encoders), here
# with a module that is trained in full beside the adapter.
KINDS = {"llama": "norm", "gpt2": "ln_f", "bert": "classifier", "mixtral": "norm", "vit": "classifier"}
ORDER = [*KINDS, *(name for name in ARCHITECTURES if name not in KINDS)]
# Other settings of a method that is tried on every family. By default they are tried on one model of each kind: the
# family decides which layers are found and with which shapes, the setting only what such a layer computes. Vision
# models have the layers of ViT under other names.
SETTINGS = (
    *("smoa_none", "smoa_energy", "smoa_noise", "smoa_grid", "mora_rotation"),
    *("surm_toeplitz", "surm_kronecker", "surm_ldr", "bottleneck_pfeiffer"),
)
CELLS = list(itertools.product(ORDER, METHODS))
# Both with the same indices as all cells, so that pytest still builds every cell once.
SOME, FEW = CELLS[: len(KINDS) * len(METHODS)], CELLS[: 3 * len(METHODS)]


def over(cells: list[tuple[str, str]]) -> pytest.MarkDecorator:
    own = [
        pytest.param(
            (family, method),
            id=f"{family}-{method}",
            marks=[pytest.mark.slow] if family not in KINDS and (method in SETTINGS or family in VISION) else [],
        )
        for family, method in cells
    ]
    return pytest.mark.parametrize("cell", own, indirect=True, scope="module")


@dataclass
class Cell:
    """One method on one architecture: left by every test as it was found."""

    kind: str
    base: nn.Module  # the untouched backbone
    model: PeftModel  # with one random adapter, in evaluation mode
    config: Callable[..., PeftConfig]
    plain: Tensor  # logits of the backbone
    start: Tensor  # logits with the adapter as it was attached
    adapted: Tensor  # logits with the random adapter

    def logits(self, model: nn.Module | None = None) -> Tensor:
        with torch.no_grad():
            return logits(model or self.model, **inputs(self.base))


def layers(model: nn.Module) -> list[AdapterLayer]:
    return [module for module in model.modules() if isinstance(module, AdapterLayer)]


def adapter_parameters(model: nn.Module, adapter: str = "default") -> list[nn.Parameter]:
    """By the containers of the layers, in the order of the model."""
    containers = [getattr(layer, name) for layer in layers(model) for name in layer.adapter_layer_names]
    return [container[adapter] for container in containers if adapter in container]


def randomise(model: nn.Module, adapter: str = "default", seed: int = 7) -> None:
    """Move every parameter of an adapter away from its start, so that the adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model, adapter):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Of the logits at one position: the median, since rounding may send a few tokens to another expert."""
    return (first.float() - second.float()).norm(dim=-1).median()


@pytest.fixture(scope="module")
def backbones() -> dict[str, nn.Module]:
    return {}


@pytest.fixture(scope="module")
def cell(request: pytest.FixtureRequest, backbones: dict[str, nn.Module]) -> Cell:
    architecture, method = request.param
    if architecture not in backbones:
        backbones.clear()
        backbones[architecture] = ARCHITECTURES[architecture]()
    base = backbones[architecture]
    with torch.no_grad():
        plain = logits(base, **inputs(base))
        model = attach(copy.deepcopy(base), METHODS[method](), seed=0).eval()
        start = logits(model, **inputs(base))
        randomise(model)
        adapted = logits(model, **inputs(base))
    return Cell(architecture, base, model, METHODS[method], plain, start, adapted)


@over(CELLS)
def test_starts_as_the_backbone_and_can_leave_it(cell: Cell) -> None:
    torch.testing.assert_close(cell.start, cell.plain, rtol=1e-5, atol=1e-5)
    assert (cell.adapted - cell.plain).abs().max() > 1e-2
    assert layers(cell.model)


@over(CELLS)
def test_only_adapter_parameters_train_and_move(cell: Cell) -> None:
    own = adapter_parameters(cell.model)
    assert {id(p) for p in cell.model.parameters() if p.requires_grad} == {id(p) for p in own}
    before = [p.detach().clone() for p in own]
    frozen = [(p, p.detach().clone()) for p in cell.model.parameters() if not p.requires_grad]
    logits(cell.model, **inputs(cell.base)).square().mean().backward()
    torch.optim.SGD(own, lr=1e-3).step()
    for parameter, value in zip(own, before, strict=True):
        assert not torch.equal(parameter, value)
        parameter.grad = None
        parameter.data.copy_(value)
    assert all(torch.equal(p, value) and p.grad is None for p, value in frozen)


@over(CELLS)
def test_merge_and_unmerge(cell: Cell) -> None:
    if isinstance(layers(cell.model)[0], SlotLayer):
        with pytest.raises(UserError, match="is a nonlinear map in the adapter slot and cannot be merged"):
            cell.model.merge_adapter()
        assert torch.equal(cell.logits(), cell.adapted)
        return
    weights = [layer.get_base_layer().weight for layer in layers(cell.model)]
    before = [weight.clone() for weight in weights]
    cell.model.merge_adapter(safe_merge=True)
    assert not any(torch.equal(weight, value) for weight, value in zip(weights, before, strict=True))
    torch.testing.assert_close(cell.logits(), cell.adapted, rtol=1e-4, atol=1e-4)
    merged = [weight.clone() for weight in weights]
    with pytest.warns(UserWarning, match="already merged"):
        cell.model.merge_adapter()
    assert all(torch.equal(weight, value) for weight, value in zip(weights, merged, strict=True))
    cell.model.unmerge_adapter()
    assert all(torch.equal(weight, value) for weight, value in zip(weights, before, strict=True))
    assert torch.equal(cell.logits(), cell.adapted)
    cell.model.merge_adapter()
    with cell.model.disable_adapter():
        assert torch.equal(cell.logits(), cell.plain)
    assert torch.equal(cell.logits(), cell.adapted)


@over(CELLS)
def test_a_saved_adapter_loads_into_a_fresh_model(cell: Cell, tmp_path: Path) -> None:
    cell.model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(cell.base), tmp_path)
    assert torch.equal(cell.logits(loaded), cell.adapted)


@over(CELLS)
def test_disabling_brings_the_backbone_back(cell: Cell) -> None:
    with cell.model.disable_adapter():
        assert torch.equal(cell.logits(), cell.plain)
    assert torch.equal(cell.logits(), cell.adapted)


@over(SOME)
def test_several_adapters(cell: Cell) -> None:
    model = cell.model
    model.add_adapter("second", cell.config())
    assert not any(p.requires_grad for p in adapter_parameters(model, "second"))
    randomise(model, "second", seed=8)
    assert torch.equal(cell.logits(), cell.adapted)
    model.base_model.set_adapter(["default", "second"])
    layer = layers(model)[0]
    if isinstance(layer, UpdateLayer):  # updates add up
        x = torch.randn(3, layer.in_features)
        delta = layer.dense_update("default") + layer.dense_update("second")
        torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ delta.T, rtol=1e-4, atol=1e-4)
    both = cell.logits()
    model.set_adapter("second")
    second = cell.logits()
    for first, other in itertools.combinations((cell.plain, cell.adapted, second, both), 2):
        assert (first - other).abs().max() > 1e-3
    model.set_adapter("default")
    assert torch.equal(cell.logits(), cell.adapted)
    model.delete_adapter("second")
    assert torch.equal(cell.logits(), cell.adapted)
    assert not [name for name in model.state_dict() if name.split(".")[-1] == "second"]


@over(SOME)
def test_gradient_checkpointing_gives_the_same_gradients(cell: Cell) -> None:
    gradients = []
    model, own = cell.model.get_base_model(), adapter_parameters(cell.model)
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # before transformers 5.23
    for checkpointing in (False, True):
        if checkpointing:
            getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False})
        torch.manual_seed(0)  # the backbone's own dropout
        loss = logits(cell.model.train(), **inputs(cell.base)).square().mean()
        gradients.append(torch.autograd.grad(loss, own))
    getattr(model, f"{name}_checkpointing_disable")()
    cell.model.eval()
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    torch.testing.assert_close(*gradients)


@over(FEW)
def test_bfloat16_backbone_keeps_float32_adapters(cell: Cell) -> None:
    base = copy.deepcopy(cell.base).bfloat16()
    model = attach(base, cell.config(), seed=0).eval()
    assert {p.dtype for p in adapter_parameters(model)} == {torch.float32}
    with torch.no_grad():
        for parameter, value in zip(adapter_parameters(model), adapter_parameters(cell.model), strict=True):
            parameter.copy_(value)
        for own, other in zip(layers(model), layers(cell.model), strict=True):
            for name in own.frozen_state:  # rounding can exchange two indices whose values nearly tie
                if "default" in getattr(own, name):
                    getattr(own, name)["default"].copy_(getattr(other, name)["default"])
        found = logits(model, **inputs(base))
    assert found.dtype == torch.bfloat16
    assert distance(found, cell.adapted) < 0.2 * distance(cell.adapted, cell.plain)
    if isinstance(layers(model)[0], UpdateLayer):
        weights = [layer.get_base_layer().weight for layer in layers(model)]
        before = [weight.clone() for weight in weights]
        model.merge_adapter()
        assert distance(cell.logits(model), found) < 0.2 * distance(cell.adapted, cell.plain)
        model.unmerge_adapter()
        assert all(torch.equal(weight, value) for weight, value in zip(weights, before, strict=True))


@over(FEW)
def test_modules_trained_in_full_travel_with_the_adapter(cell: Cell, tmp_path: Path) -> None:
    extra = KINDS[cell.kind]
    model = attach(copy.deepcopy(cell.base), cell.config(modules_to_save=[extra]), seed=0).eval()
    own = {id(p) for p in adapter_parameters(model)}
    full = [(name, p) for name, p in model.named_parameters() if p.requires_grad and id(p) not in own]
    assert full
    assert all(f"{extra}.modules_to_save.default." in name for name, _ in full)
    with torch.no_grad():
        for _, parameter in full:
            parameter.add_(0.1)
    changed = cell.logits(model)
    assert (changed - cell.start).abs().max() > 1e-2
    model.save_pretrained(tmp_path)
    assert torch.equal(cell.logits(PeftModel.from_pretrained(copy.deepcopy(cell.base), tmp_path)), changed)
    with model.disable_adapter():
        assert torch.equal(cell.logits(model), cell.plain)
