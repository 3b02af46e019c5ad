"""A merged layer computes what the layer with its adapter computes, or nothing is written."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from smoa_lightning.adapters import SMoAConfig, SurmConfig
from smoa_lightning.adapters.attach import attach
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.export.merge import check_merged, layer_outputs

WITHOUT_MERGE = {"frozen", "full", "prefix", "prompt", "ptuning", "shadow", "bottleneck", "bottleneck_pfeiffer"}
FILES = sorted((Path(__file__).parents[2] / "experiments/adapters").glob("*.yaml"))
ADAPTERS = [file for file in FILES if file.stem not in WITHOUT_MERGE and not file.stem.startswith("surm_adapter")]
CONFIGS: dict[str, Any] = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules=["q_proj", "down_proj"]),
    "smoa": lambda: SMoAConfig(r=4, num_subspaces=2, target_modules=["q_proj", "down_proj"]),
    "surm": lambda: SurmConfig(structure="circulant", target_modules=["q_proj", "down_proj"]),
}


def moved(backbone: Path, name: str, dtype: torch.dtype = torch.float32, size: float = 0.1) -> Any:
    """Return an adapted model whose parameters have left their start, in evaluation mode."""
    torch.manual_seed(0)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(backbone, dtype=dtype).float(), CONFIGS[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=size)
    return model.eval()


@pytest.mark.parametrize("size", [0.1, 1e-4])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_right_merge_passes(name: str, size: float, tiny_backbone: Path) -> None:
    model = moved(tiny_backbone, name, torch.bfloat16, size)  # a merge is in float32, whatever the weights were
    outputs = layer_outputs(model)
    assert len(outputs) == 2 * model.config.num_hidden_layers
    check_merged(model.merge_and_unload(), outputs, name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft, about its own methods
@pytest.mark.parametrize("file", ADAPTERS, ids=lambda file: file.stem)
def test_no_right_merge_of_a_shipped_method_is_refused(file: Path) -> None:
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["adapter"]
    package, _, name = settings["class_path"].rpartition(".")
    config = getattr(importlib.import_module(package), name)(**settings.get("init_args", {}))
    backbone = BackboneConfig("embedded")
    model = attach(load_model(backbone, locate(backbone)), config, seed=0).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    outputs = layer_outputs(model)
    assert len(outputs) == 20
    check_merged(model.merge_and_unload(), outputs, name)


@pytest.mark.filterwarnings("ignore:Input and output embeddings")  # of peft; an export handles it
def test_an_adapter_of_tokens_in_a_tied_embedding_is_gone_after_a_merge(tiny_backbone: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_backbone, tie_word_embeddings=True)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[1, 2])
    model = peft.get_peft_model(base, config).eval()
    outputs = layer_outputs(model)
    assert any("token_adapter" in name for name in outputs)
    check_merged(model.merge_and_unload(), outputs, "lora")


def test_a_weight_that_is_not_a_number_is_refused(tiny_backbone: Path) -> None:
    model = moved(tiny_backbone, "lora")
    outputs = layer_outputs(model)
    merged = model.merge_and_unload()
    with torch.no_grad():
        merged.get_submodule("model.layers.0.self_attn.q_proj").weight[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"merged weight of model\.layers\.0\.self_attn\.q_proj is wrong"):
        check_merged(merged, outputs, "lora")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrong_merge_is_refused(name: str, tiny_backbone: Path) -> None:
    model = moved(tiny_backbone, name)
    outputs = layer_outputs(model)
    merged = model.merge_and_unload()
    weight = merged.get_submodule("model.layers.1.mlp.down_proj").weight
    frozen = AutoModelForCausalLM.from_pretrained(tiny_backbone).get_submodule("model.layers.1.mlp.down_proj").weight
    with torch.no_grad():
        weight.add_(weight - frozen, alpha=0.05)  # a twentieth too much
    with pytest.raises(UserError) as refused:
        check_merged(merged, outputs, name)
    assert str(refused.value) == (
        "export: the merged weight of model.layers.1.mlp.down_proj is wrong: its outputs differ from those of the "
        f"layer with the adapter by 5% of what {name} adds, so nothing is written"
    )
