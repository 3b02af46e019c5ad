"""The data about the strategies against built models, the shipped files and the page."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import attach
from smoa_lightning.adapters.budget import countable
from smoa_lightning.adapters.inspect import adapted_layers
from smoa_lightning.adapters.size_settings import size_settings_of
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, load_skeleton, locate
from smoa_lightning.configuration.methods import Method, methods
from tests.conftest import EXPERIMENTS
from tools import methods_page

pytestmark = [  # BOFT looks for a CUDA compiler, and goes on without
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor"),
]
FILES = {file.stem for file in (EXPERIMENTS / "adapters").glob("*.yaml")}


@pytest.fixture(scope="module")
def skeleton() -> Any:
    """The embedded model, whose shapes all files fit, without weights."""
    config = BackboneConfig("embedded")
    return lambda: load_skeleton(config, locate(config))


def strategy(method: Method) -> Any:
    package, _, name = str(method.class_path).rpartition(".")
    return getattr(importlib.import_module(package), name)(**method.settings)


def names_of(model: Any) -> dict[str, float]:
    config = model.config
    names = {"n": config.hidden_size, "layers": config.num_hidden_layers}
    names["d_kv"] = config.num_key_value_heads * config.head_dim
    names["d_ff"] = config.intermediate_size
    names["total"] = sum(parameter.numel() for parameter in model.parameters())
    return names


def test_every_file_has_an_entry() -> None:
    assert set(methods()) == FILES


@pytest.mark.parametrize("name", sorted(FILES - {"full", "frozen"}))
def test_formulas_are_those_of_a_built_model(name: str, skeleton: Any) -> None:
    method, model = methods()[name], skeleton()
    names = names_of(model)
    adapted = attach(model, countable(strategy(method)), 0)
    layers = adapted_layers(adapted)
    names["sides"] = sum(layer.in_features + layer.out_features for layer in layers)
    total = method.parameters(**names) if method.per == "model" else 0.0
    for layer in layers if method.per != "model" else ():
        d_out, d_in = layer.out_features, layer.in_features
        shape = {"d_in": d_in, "d_out": d_out, "N": max(d_in, d_out), "m": min(d_in, d_out)}
        shape["feedforward"] = ".mlp." in layer.name
        total += method.parameters(**names, **shape)
        assert 0 < layer.rank_bound <= method.rank_bound(**shape) or layer.rank_bound == 0 == method.rank_bound(**shape)
    assert total == sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert method.merge == any(layer.rank_bound for layer in layers)


def test_formulas_without_an_adapter(skeleton: Any) -> None:
    names = names_of(skeleton())
    assert methods()["full"].parameters(**names) == names["total"]
    assert methods()["frozen"].parameters(**names) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name, method in methods().items() if method.merge))
def test_merging_keeps_the_outputs(name: str) -> None:
    config = BackboneConfig("embedded")
    network = attach(load_model(config, locate(config)), strategy(methods()[name]), 0).eval()
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    ids = torch.randint(5, 1000, (2, 12))
    with torch.no_grad():
        before = network(ids).logits
        after = network.merge_and_unload()(ids).logits
    torch.testing.assert_close(after, before, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", sorted(FILES - {"full", "frozen"}))
def test_budget_and_class_are_those_of_the_file(name: str) -> None:
    method = methods()[name]
    assert method.budget == tuple(setting.field for setting in size_settings_of(strategy(method)))
    assert (method.group == "peft") == ("peft." in str(method.class_path) or name == "adalora")


def test_the_page_is_fresh() -> None:
    text = methods_page.PAGE.read_text(encoding="utf-8")
    assert methods_page.page(text) == text, "run: python -m tools.methods_page"
    assert methods_page.page(text.replace("arXiv 2106.09685", "arXiv 1", 1)) == text


def test_the_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line} >= FILES
    assert sum(line.startswith("(too narrow for update") for line in lines) == 2  # no column is left out silently
    assert max(map(len, lines)) <= 120
    assert main(["methods", "--json"]) == 0
    assert {entry["key"] for entry in json.loads(capsys.readouterr().out)} == FILES


def test_the_command_shows_one_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("smoa_blocks", "adapters/smoa_blocks", "smoa_blocks.yaml"):
        assert main(["methods", name]) == 0
        shown = capsys.readouterr().out
        assert "SMoA v2 (arXiv 2605.21147)" in shown
        assert "partition: spectral_blocks" in shown
        assert "--model.adapter.num_subspaces int = 2" in shown
        assert "peft_version" not in shown
    assert main(["methods", "full", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {}


@pytest.mark.parametrize(("name", "near"), [("loRA", "lora"), ("smoa", "smoa_"), ("surm_toeplit", "surm_toeplitz")])
def test_an_unknown_strategy_names_the_nearest(name: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", name]) == 2
    assert near in capsys.readouterr().err.splitlines()[-1]


def test_the_command_imports_no_torch() -> None:
    code = "import sys; from smoa_lightning.__main__ import main; main(['methods']); main(['methods', 'lora']); " + (
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert done.stdout.splitlines()[-1] == "False"
