"""Fused layers as single parts: the same outputs, LoRA on some parts against peft's on the whole layer, and export."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.adapters.inspect import adapted_layers
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, load_skeleton, locate
from smoa_lightning.backbones.fused import FUSED, SplitLinear, join_fused, split_fused
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.adapter_folder import load_adapter, reading
from smoa_lightning.training.module import FineTuneModule

from ..adapters.architectures import ARCHITECTURES, inputs, logits
from ..runs import only_run


def modernbert() -> nn.Module:
    sizes = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "local_attention": 16,
             "initializer_range": 0.2, "num_labels": 3, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
             "sep_token_id": 2}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model("modernbert", **sizes)
        return AutoModelForSequenceClassification.from_config(config).eval()


MODELS: dict[str, Any] = {
    "gpt2": ARCHITECTURES["gpt2"],
    "phi3": ARCHITECTURES["phi3"],
    "modernbert": modernbert,
}
PARTS = ("q", "k", "v", "gate", "up")
QKV = {"gpt2": "attn.c_attn", "phi3": "self_attn.qkv_proj", "modernbert": "attn.Wqkv"}
QUERY = {"gpt2": 20, "phi3": 20, "modernbert": 24}  # outputs; Phi-3 has one head of keys and values for two of queries
VALUE = {"gpt2": 20, "phi3": 10, "modernbert": 24}


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_are_the_layer(name: str) -> None:
    model = MODELS[name]().double()  # rounding in float32 depends on the processor
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    expected = logits(model, **inputs(model))
    split_fused(model, name)
    split = [path for path, module in model.named_modules() if isinstance(module, SplitLinear)]
    assert len(split) == 2 * len(FUSED[name])
    first = model.get_submodule(next(path for path in split if path.endswith(QKV[name])))
    outputs = [part(torch.zeros(1, QUERY[name], dtype=torch.float64)).shape[-1] for part in first.children()]
    assert outputs == [QUERY[name], VALUE[name], VALUE[name]]
    torch.testing.assert_close(logits(model, **inputs(model)), expected, atol=1e-12, rtol=0)
    split_fused(model, name)  # once more changes nothing
    assert len([m for m in model.modules() if isinstance(m, SplitLinear)]) == len(split)
    join_fused(model)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_lora_on_queries_and_values_is_a_lora_of_blocks_on_the_whole_layer(name: str) -> None:
    """peft's LoRA on the fused layer with B = [[B_q, 0], [0, 0], [0, B_v]] and A = [A_q, A_v]."""
    ending, r = QKV[name], 3
    model = MODELS[name]()
    split_fused(model, name)
    config = peft.LoraConfig(r=r, lora_alpha=r, target_modules=[f"{ending}.q", f"{ending}.v"])
    adapted = attach(model, config, 0)
    generator = torch.Generator().manual_seed(1)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    whole: Any = peft.get_peft_model(
        MODELS[name](),
        peft.LoraConfig(r=2 * r, lora_alpha=2 * r, target_modules=[ending], fan_in_fan_out=name == "gpt2"),
    )
    pieces = dict(adapted.named_parameters())
    for key, parameter in whole.named_parameters():
        if "lora_" not in key:
            continue
        path, _, rest = key.partition(f"{ending}.")
        q, v = (pieces[f"{path}{ending}.{part}.{rest}"] for part in "qv")
        with torch.no_grad():
            if "lora_A" in key:
                parameter.copy_(torch.cat([q, v]))
            else:
                parameter.zero_()
                parameter[: QUERY[name], :r], parameter[-VALUE[name] :, r:] = q, v
    base = logits(MODELS[name](), **inputs(model))
    found = logits(adapted.eval(), **inputs(model))
    assert (found - base).abs().max() > 0.1
    torch.testing.assert_close(found, logits(whole.eval(), **inputs(model)), atol=1e-5, rtol=1e-5)


def test_the_name_of_the_layer_means_all_its_parts(tmp_path: Path) -> None:
    for name, parts in (("gpt2", 3), ("phi3", 5)):
        MODELS[name]().save_pretrained(tmp_path / name)
        config = BackboneConfig("local", path=str(tmp_path / name), split_fused=True)
        skeleton = load_skeleton(config, locate(config))
        assert all(p.is_meta for p in skeleton.parameters())
        for targets in (None, list(FUSED[name])):
            network = attach(load_model(config, locate(config)), SMoAConfig(r=2, target_modules=targets), 0)
            split = [layer for layer in adapted_layers(network) if layer.name.rpartition(".")[2] in PARTS]
            assert len(split) == 2 * parts


@pytest.mark.parametrize("name", MODELS)
def test_other_settings_name_the_whole_layer_too(name: str) -> None:
    """An exclusion, ranks of single layers and a regular expression mean all parts, as for the fused layer."""
    ending = QKV[name].rpartition(".")[2]

    def adapted(**settings: Any) -> dict[str, int]:
        model = MODELS[name]()
        whole = {layer.name: layer.rank_bound for layer in adapted_layers(attach(MODELS[name](), config(settings), 0))}
        split_fused(model, name)
        found = {layer.name: layer.rank_bound for layer in adapted_layers(attach(model, config(settings), 0))}
        assert {key.rpartition(".")[0] if key.rpartition(".")[2] in (*PARTS, "input") else key for key in found} == {
            *whole
        }
        for key, rank in found.items():
            assert rank == whole.get(key, whole.get(key.rpartition(".")[0]))
        return found

    def config(settings: dict[str, Any]) -> peft.LoraConfig:
        return peft.LoraConfig(r=2, **settings)

    layers = "h|layers"
    assert not [key for key in adapted(exclude_modules=[ending]) if ending in key]
    assert [key for key in adapted(exclude_modules=rf".*({layers})\.0\..*{ending}") if ending in key]
    assert {*adapted(target_modules=[ending], rank_pattern={ending: 3}).values()} == {3}
    assert {*adapted(rank_pattern={rf"({layers})\.0\..*{ending}": 5}).values()} == {2, 5}
    assert len(adapted(target_modules=rf".*\.0\..*{ending}")) == 3


@pytest.mark.parametrize("owner", ["timm.models.tiny_vit", "timm.models.gcvit", "timm.models.maxxvit"])
def test_layers_of_timm_whose_parts_are_mixed_are_not_split(owner: str) -> None:
    def model(module: str) -> Any:
        attention = type("Attention", (nn.Module,), {"__module__": module})()
        attention.qkv = nn.Linear(4, 12)
        network: Any = nn.ModuleDict({"block": nn.ModuleDict({"attn": attention})})
        network.config = SimpleNamespace(model_type="timm_wrapper")
        return network

    with pytest.raises(UserError, match=r"is of the kind 'timm_wrapper', which has no fused layer whose outputs lie"):
        split_fused(model(owner), "mixed")
    split = model("timm.layers.attention")
    split_fused(split, "in order")
    assert [part.out_features for part in split["block"]["attn"].qkv.children()] == [4, 4, 4]


def test_a_run_is_exported_with_its_fused_layers(
    tiny_arguments: list[str], tiny_backbone: Path, tmp_path: Path
) -> None:
    """Only the rows of queries and values of the fused weight change; any program can load the result."""
    vocabulary = AutoConfig.from_pretrained(tiny_backbone).vocab_size
    folder = tmp_path / "gpt2"
    shutil.copytree(tiny_backbone, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json", "generation*"))
    ARCHITECTURES["gpt2"](vocab_size=vocabulary, n_positions=512).save_pretrained(folder)  # type: ignore[call-arg]
    arguments = [*tiny_arguments, "--model.backbone.path", str(folder), "--model.backbone.split_fused", "true"]
    arguments += ["--model.adapter", "peft.LoraConfig", "--model.adapter.target_modules", "[c_attn.q, c_attn.v]"]
    assert main(["fit", *arguments, "--trainer.max_steps", "4", "--model.warmup", "0"]) == 0
    run = only_run(tmp_path / "runs")
    assert main(["export", str(run), "--output", str(tmp_path / "merged")]) == 0
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "merged"))
    assert before.keys() == after.keys()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == [key for key in before if key.endswith("c_attn.weight")]
    for key in changed:
        moved = (before[key] != after[key]).any(dim=0)  # Conv1D has its outputs in columns
        assert moved[:20].any()
        assert not moved[20:40].any()
        assert moved[40:].any()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Unexpected keyword")
        given = load_adapter(run, AutoModelForCausalLM.from_pretrained(folder))[0]  # a plain model gets its parts
        assert main(["rank", str(run), "--truncate"]) == 0  # the whole update has twice the rank of one part
    best = run / "adapter" / "best"
    with pytest.warns(UserWarning, match=r"load this adapter with smoa_lightning\.load_adapter, its fused layers were"):
        peft.PeftConfig.from_pretrained(str(best))
    newer = shutil.copytree(best, tmp_path / "newer")
    config = json.loads((newer / "adapter_config.json").read_text())
    (newer / "adapter_config.json").write_text(json.dumps(config | {"of_a_newer_peft": 1}))
    with pytest.warns(UserWarning, match=r"of_a_newer_peft"), reading(newer):  # other unknown keys are not hidden
        peft.PeftConfig.from_pretrained(str(newer))
    ids = {"input_ids": torch.arange(10).view(1, 10) + 5}
    torch.testing.assert_close(given(**ids).logits, merged(**ids).logits, atol=1e-4, rtol=1e-4)
    assert main(["export", str(run), "--output", str(tmp_path / "lora"), "--format", "lora"]) == 0
    lora = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path / "lora"))
    torch.testing.assert_close(lora(**ids).logits, merged(**ids).logits, atol=1e-3, rtol=1e-3)


def test_what_cannot_be_split_is_refused(tiny_backbone: Path) -> None:
    config = BackboneConfig("local", path=str(tiny_backbone), split_fused=True)
    with pytest.raises(UserError, match=r"split_fused is true, but .* is of the kind 'llama', which has no fused"):
        load_skeleton(config, locate(config))
    with pytest.raises(UserError, match=r"is of the kind 'gpt_neox', which has no fused layer whose outputs lie"):
        split_fused(ARCHITECTURES["gpt_neox"](), "gpt_neox")
    with pytest.raises(UserError, match=r"split_fused is true, but model.adapter is null"):
        FineTuneModule(BackboneConfig(split_fused=True))
    with pytest.raises(UserError, match=r"split_fused is true and model.backbone.quantization is 'nf4'"):
        locate(BackboneConfig(split_fused=True, quantization="nf4"))
