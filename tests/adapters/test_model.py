"""What a SMoA model does beyond the behaviours of every method (test_matrix.py): state, merging, several adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from smoa_lightning.adapters import SMoAConfig, attach, gram
from smoa_lightning.adapters.smoa import SmoaLinear
from smoa_lightning.common.errors import UserError

Maker = Callable[..., Any]


def config(partition: Any = "spectral_blocks", modulation: Any = "weight", **more: Any) -> SMoAConfig:
    count = 1 if partition == "none" else 2
    return SMoAConfig(**{"r": 4, "num_subspaces": count, "partition": partition, "modulation": modulation, **more})


def layers(model: nn.Module) -> list[SmoaLinear]:
    return [module for module in model.modules() if isinstance(module, SmoaLinear)]


def base_weights(model: nn.Module) -> list[Tensor]:
    return [layer.base_layer.weight.detach().clone() for layer in layers(model)]


def test_initial_factors(llama: Maker) -> None:
    """B is zero; A is uniform within 1/sqrt(fan-in of its block), Kaiming with a = sqrt 5."""
    for layer in layers(attach(llama(), config(num_subspaces=3, r=9), seed=0)):
        for a, b in layer.factors("default"):
            bound = a.shape[1] ** -0.5
            assert 0.5 * bound < a.abs().max() <= bound
            assert not b.any()


def test_initialisation_depends_on_the_seed_alone(llama: Maker) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    backbone = llama()
    torch.set_rng_state(state)
    first = attach(backbone, config(), seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    second, third = (attach(llama(), config(), seed=seed).state_dict() for seed in (5, 6))
    names = [name for name in first if "smoa_A" in name]
    assert all(torch.equal(first[name], second[name]) for name in names)
    assert not any(torch.equal(first[name], third[name]) for name in names)


@pytest.mark.parametrize("partition", ["spectral_blocks", "spectral_energy"])
def test_layers_prepared_one_after_another_get_the_same_state(
    partition: str, llama: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As large layers are, whose weights are read side by side before."""
    side_by_side = attach(llama(), config(partition), seed=0).state_dict()
    monkeypatch.setattr(gram, "SMALL", 0)
    monkeypatch.setenv("SMOA_LIGHTNING_CACHE", str(tmp_path))  # nothing is kept from before
    model = attach(llama(), config(partition), seed=0)
    assert not any(layer.prepared_by_one_thread for layer in layers(model))
    names = [name for name in side_by_side if "order" in name or "cut_points" in name or "fingerprint" in name]
    assert names
    assert all(torch.equal(model.state_dict()[name], side_by_side[name]) for name in names)


def test_state_is_computed_from_the_unmerged_weight(llama: Maker, randomise: Maker) -> None:
    """An adapter that is added while another one is merged sees the weights of the backbone."""
    reference = attach(llama(), config("spectral_energy"), seed=0)
    model = randomise(attach(llama(), config(), seed=0))
    for layer, other in zip(layers(model), layers(reference), strict=True):
        layer.merge()
        layer.update_layer("late", config("spectral_energy"))
        layer.prepare("late")
        for state in ("smoa_fingerprint", "smoa_cut_points"):
            assert torch.equal(getattr(layer, state)["late"], getattr(other, state)["default"])
        for mask, expected in zip(layer.plan("late").masks, other.plan("default").masks, strict=True):
            assert torch.equal(mask, expected)
        delta = layer.dense_update("default")
        torch.testing.assert_close(layer.unmerged_weight() + delta, layer.base_layer.weight, rtol=1e-5, atol=1e-6)


def test_safe_merge_refuses_broken_adapters(llama: Maker, randomise: Maker) -> None:
    model = randomise(attach(llama(), config(), seed=0))
    weights = base_weights(model)
    layers(model)[0].smoa_B["default"].data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        model.merge_adapter(safe_merge=True)
    assert not layers(model)[0].merged
    assert torch.equal(weights[0], base_weights(model)[0])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_merge_and_unload(kind: str, randomise: Maker, token_ids: Tensor, request: pytest.FixtureRequest) -> None:
    make = request.getfixturevalue(kind)
    model = randomise(attach(make(), config(), seed=0))
    adapted = model(token_ids).logits
    plain = model.merge_and_unload(safe_merge=True)
    assert not layers(plain)
    torch.testing.assert_close(plain(token_ids).logits, adapted)
    restored = randomise(attach(make(), config(), seed=0)).unload()
    torch.testing.assert_close(restored(token_ids).logits, make()(token_ids).logits)


@pytest.fixture
def pair(llama: Maker, randomise: Maker) -> PeftModel:
    """A model with two different adapters, the first one active."""
    model = attach(llama(), config("spectral_blocks"), seed=0)
    model.add_adapter("second", config("spectral_energy", r=3))
    return randomise(model, seed=9)


def test_several_adapters_add_up(pair: PeftModel, token_ids: Tensor) -> None:
    assert pair.active_adapters == ["default"]
    second = {id(p) for layer in layers(pair) for p in (layer.smoa_A["second"], layer.smoa_B["second"])}
    assert not any(p.requires_grad for p in pair.parameters() if id(p) in second)
    pair.base_model.set_adapter(["default", "second"])
    both = pair(token_ids).logits
    for layer in layers(pair):
        x = torch.randn(3, layer.in_features)
        delta = layer.dense_update("default") + layer.dense_update("second")
        torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ delta.T, rtol=1e-4, atol=1e-5)
    pair.merge_adapter(adapter_names=["default", "second"])
    torch.testing.assert_close(pair(token_ids).logits, both, rtol=1e-4, atol=1e-5)


def test_merging_one_after_another_is_merging_both(pair: PeftModel, token_ids: Tensor) -> None:
    weights = base_weights(pair)
    pair.merge_adapter(adapter_names=["default", "second"])
    together = base_weights(pair)
    pair.unmerge_adapter()
    pair.merge_adapter(adapter_names=["default"])
    with pytest.warns(UserWarning, match="additionally merging second"):
        pair.merge_adapter(adapter_names=["second"])
    assert all(torch.equal(a, b) for a, b in zip(together, base_weights(pair), strict=True))
    pair.unmerge_adapter()
    assert all(torch.equal(a, b) for a, b in zip(weights, base_weights(pair), strict=True))


def test_a_deleted_adapter_leaves_nothing_behind(pair: PeftModel, token_ids: Tensor) -> None:
    pair(token_ids)
    assert all("default" in layer._plans for layer in layers(pair))
    pair.set_adapter("second")
    pair.delete_adapter("default")
    assert all("default" not in layer._plans | layer.configs for layer in layers(pair))


def test_deleting_the_active_adapter_activates_the_other(pair: PeftModel, token_ids: Tensor) -> None:
    pair.set_adapter("second")
    second = pair(token_ids).logits
    pair.set_adapter("default")
    with pytest.warns(UserWarning, match="Setting active adapter to second"):
        pair.delete_adapter("default")
    assert torch.equal(pair(token_ids).logits, second)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_reentrant_checkpointing_gives_the_same_gradients(llama: Maker, randomise: Maker, token_ids: Tensor) -> None:
    """It runs forward again inside backward, and both use the scratch buffers."""
    gradients = []
    for checkpointing in (False, True):
        model = randomise(attach(llama(), config("spectral_energy"), seed=0)).train()
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": True})
        model(token_ids, labels=token_ids).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert len(gradients[0]) == 20
    for plain, checkpointed in zip(*gradients, strict=True):
        assert checkpointed.abs().max() > 0
        torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize(("bias", "count"), [("none", 0), ("smoa_only", 4), ("all", 7)])
def test_bias(bias: str, count: int, gpt2: Maker, token_ids: Tensor) -> None:
    model = attach(gpt2(), config(bias=bias, target_modules=["c_attn", "c_fc"]), seed=0)
    trained = [p for name, p in model.named_parameters() if name.endswith("bias") and p.requires_grad]
    assert len(trained) == count if bias != "all" else len(trained) > 4
    model(token_ids, labels=token_ids).loss.backward()
    assert all(p.grad is not None for p in trained)


def test_hooks_of_the_base_layer_are_called(llama: Maker, randomise: Maker) -> None:
    layer = layers(randomise(attach(llama(), config(), seed=0)))[0]
    x = torch.randn(2, layer.in_features)
    expected, seen = layer(x), []
    layer.base_layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert len(seen) == 1


def test_a_trained_weight_is_refused(llama: Maker, token_ids: Tensor) -> None:
    model = attach(llama(), config(), seed=0)
    layers(model)[0].base_layer.weight.requires_grad_(True)
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.q_proj requires gradients"):
        model(token_ids)


def test_plain_get_peft_model_knows_default_targets(llama: Maker, gpt2: Maker) -> None:
    model = get_peft_model(llama(), config())
    assert {layer.name.rpartition(".")[2] for layer in layers(model)} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "up_proj",
        "down_proj",
    }
    assert {layer.name.rpartition(".")[2] for layer in layers(get_peft_model(gpt2(), config()))} == {
        "c_attn",
        "c_fc",
        "c_proj",
    }


def test_transformers_own_adapter_methods(llama: Maker, randomise: Maker, token_ids: Tensor) -> None:
    model = llama()
    plain = model(token_ids).logits
    model.add_adapter(config(target_modules=["q_proj"]), "mine")
    randomise(model)
    assert (model(token_ids).logits - plain).abs().max() > 1e-4
    model.disable_adapters()
    assert torch.equal(model(token_ids).logits, plain)


def test_double_conversion_follows(llama: Maker, randomise: Maker) -> None:
    """After model.to(...) masks and orders follow the new dtype."""
    model = randomise(attach(llama(), config("spectral_energy"), seed=0))
    layer = layers(model)[0]
    x = torch.randn(2, layer.in_features)
    before = layer(x)
    model.double()
    assert layer(x.double()).dtype == torch.float64
    torch.testing.assert_close(layer(x.double()).float(), before, rtol=1e-5, atol=1e-6)


def test_layers_of_one_shape_do_not_share_their_noise(llama: Maker) -> None:
    first, second = (
        layer for layer in layers(attach(llama(), config("random_blocks", "random"), seed=0)) if "up_proj" in layer.name
    )
    assert not torch.equal(first.smoa_row_order["default"], second.smoa_row_order["default"])
    assert not torch.allclose(first.plan("default").noise[0], second.plan("default").noise[0])
