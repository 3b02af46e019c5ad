"""Methods that run peft's own code: a training step, saving, loading and merging of every file, on a tiny model."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from smoa_lightning.adapters import adapted_layers, attach, layer_update, update_rank
from smoa_lightning.adapters.budget import Budget, countable, fit_budget, trainable_parameters
from smoa_lightning.adapters.rank import is_matrix_layer
from smoa_lightning.configuration.methods import methods

# Settings that fit sides of 32 and 64; files that are not named here are tried by other tests.
SETTINGS: dict[str, dict[str, Any]] = {
    "frod": {},
    "shira": {"r": 4},
    "miss": {"r": 8},
    "delora": {"r": 4},
    "psoft": {"r": 8, "psoft_alpha": 8},
    "osf": {"effective_rank": 0.75},
    "hra": {"r": 4},
    "waveft": {"n_frequency": 50},
    "road": {"group_size": 16},
    "peanut": {"r": 4},
    "glora": {"r": 4},
    "supertuning": {},
    "deft": {"r": 4},
    "tinylora": {"u": 8},
    "unilora": {"theta_d_length": 200},
    "vblora": {"num_vectors": 8, "vector_length": 16},
    "velora": {"r": 4, "velora_config": {"num_groups": 8}},
    "mica": {"r": 4, "lora_alpha": 4},
    "shadow": {"r": 4},
}
DRAWN_AT_START = {"unilora", "vblora"}  # both factors start at random values, so that the update is not zero
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of peft about its own defaults


@pytest.fixture
def base(llama: Callable[..., Any]) -> nn.Module:
    model: nn.Module = llama(hidden_size=32, intermediate_size=64, num_key_value_heads=2)
    return model


def strategy(name: str) -> Any:
    method = methods()[name]
    package, _, kind = str(method.class_path).rpartition(".")
    return getattr(importlib.import_module(package), kind)(**{**method.settings, **SETTINGS[name]})


@torch.no_grad()
def logits(model: Any, token_ids: Tensor) -> Tensor:
    return model.eval()(token_ids).logits


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_saving_loading_and_merging(name: str, base: Any, token_ids: Tensor, tmp_path: Path) -> None:
    plain = logits(base, token_ids)
    model = attach(copy.deepcopy(base), strategy(name), seed=0)
    close = {"rtol": 1e-4, "atol": 1e-4}
    if name not in DRAWN_AT_START:
        torch.testing.assert_close(logits(model, token_ids), plain, **close)
    trained = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # some parameters have a gradient only after others have left zero
        model.train()(token_ids, labels=token_ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {key for key, p in model.named_parameters() if key in trained and not torch.equal(p, trained[key])}
    # nothing follows the last block that Shadow's state could correct
    assert moved == {key for key in trained if name != "shadow" or "layers.1.shadow_update" not in key}
    changed = logits(model, token_ids)
    assert (changed - plain).abs().max() > 1e-3
    with model.disable_adapter():
        torch.testing.assert_close(logits(model, token_ids), plain, **close)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(logits(loaded, token_ids), changed)
    again = attach(copy.deepcopy(base), strategy(name), seed=0)  # a checkpoint of a run has the state of the model
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again, token_ids), changed)
    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    for layer, entry in zip(layers, adapted_layers(model), strict=True):
        assert is_matrix_layer(layer) == methods()[name].merge == (entry.rank_bound > 0)
        if is_matrix_layer(layer):
            assert 0 < update_rank(layer_update(layer)).numerical <= entry.rank_bound
    if methods()[name].merge:
        torch.testing.assert_close(logits(model.merge_and_unload(), token_ids), changed, **close)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_without_weights_has_the_same_adapter(name: str, base: Any) -> None:
    """Names, shapes and layers, so that sizes and budgets need no weights."""
    adapted = attach(copy.deepcopy(base), strategy(name), seed=0)
    skeleton = attach(copy.deepcopy(base).to("meta"), countable(strategy(name)), seed=0)
    shapes = [{k: p.shape for k, p in m.named_parameters() if p.requires_grad} for m in (adapted, skeleton)]
    assert shapes[0] == shapes[1]
    assert adapted_layers(adapted) == adapted_layers(skeleton)
    total = sum(layer.trainable_parameters for layer in adapted_layers(adapted))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert total == trained or name == "shadow"  # its small model belongs to no layer


BUDGETS: dict[str, list[dict[str, Any]]] = {  # the sizes that a budget is taken from, each found again
    "frod": [{"sparse_rate": 0.2}, {"sparse_rate": 0.003}],
    "shira": [{"r": 2}, {"r": 7}],
    "miss": [{"r": 3}],
    "delora": [{"r": 9}],
    "psoft": [{"r": 5, "psoft_alpha": 5}],
    "osf": [{"effective_rank": 0.5}],
    "hra": [{"r": 10}],
    "waveft": [{"n_frequency": 333}],
    "road": [{"variant": "road_4"}, {"variant": "road_2"}],
    "peanut": [{"r": 2}],
    "glora": [{"r": 1}],
    "supertuning": [{"sparsity": 0.5}, {"sparsity": 0.99}],
    "deft": [{"r": 2}],
    "tinylora": [{"u": 77}],
    "unilora": [{"theta_d_length": 12_345}],
    "vblora": [{"num_vectors": 40}],
    "velora": [{"r": 2, "lora_alpha": 2}],
    "mica": [{"r": 7, "lora_alpha": 7}],
    "shadow": [{"r": 6}],
}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_budget_finds_the_size(name: str, base: Any) -> None:
    skeleton, config = base.to("meta"), strategy(name)
    for sizes in BUDGETS[name]:
        wanted = copy.deepcopy(config)
        for key, value in sizes.items():
            setattr(wanted, key, value)
        target = trainable_parameters(skeleton, wanted)
        found = fit_budget(skeleton, config, Budget(target, target))
        assert found.parameters == target
        assert found.changes.keys() == sizes.keys()
        assert trainable_parameters(skeleton, found.config) == target
    nothing = fit_budget(skeleton, config, Budget(1, 1))
    assert nothing.within or "not met within 1%; nearest is" in nothing.line()
