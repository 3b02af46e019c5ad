"""What peft and accelerate expect of a tuner: status, dtypes, sizes, layers, shared, offloaded and damaged weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from smoa_lightning.adapters import HyperAdaptConfig, SMoAConfig, SurmConfig, attach
from smoa_lightning.common.errors import UserError

from .architectures import ARCHITECTURES, inputs, logits
from .test_matrix import METHODS, adapter_parameters, layers, randomise

UPDATES = [name for name in METHODS if "slot" not in name and "bottleneck" not in name]


@pytest.mark.parametrize("method", METHODS)
def test_status_names_the_method(method: str) -> None:
    model = get_peft_model(ARCHITECTURES["llama"](), METHODS[method]())
    kind = "SMOA" if method.startswith("smoa") else method.partition("_")[0].upper()
    assert model.get_model_status().peft_types == {"default": kind}
    assert model.peft_config["default"].to_dict()["peft_type"] == kind


@pytest.mark.parametrize("method", METHODS)
def test_dtype_of_the_layer_is_kept_if_asked(method: str, tmp_path: Path) -> None:
    base = ARCHITECTURES["llama"]().bfloat16()
    wide = get_peft_model(copy.deepcopy(base), METHODS[method]())
    narrow = get_peft_model(base, METHODS[method](), autocast_adapter_dtype=False)
    assert {p.dtype for p in adapter_parameters(wide)} == {torch.float32}
    assert {p.dtype for p in adapter_parameters(narrow)} == {torch.bfloat16}
    logits(narrow, **inputs(base)).float().square().mean().backward()
    assert all(p.grad is not None for p in adapter_parameters(narrow))
    wide.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(ARCHITECTURES["llama"]().bfloat16(), str(tmp_path), autocast_adapter_dtype=False)
    for own, other in zip(adapter_parameters(loaded), adapter_parameters(wide), strict=True):
        assert torch.equal(own, other.bfloat16())
        assert not own.requires_grad


@pytest.mark.parametrize("method", ["surm_slot", "bottleneck_pfeiffer", "smoa_none"])
def test_layers_have_the_sizes_of_their_base(method: str) -> None:
    for layer in layers(attach(ARCHITECTURES["llama"](), METHODS[method](), seed=0)):
        assert (layer.out_features, layer.in_features) == tuple(layer.base_layer.weight.shape)
    for layer in layers(attach(ARCHITECTURES["mixtral"](), METHODS["surm_slot"](target_modules=["mlp"]), seed=0)):
        assert (layer.out_features, layer.in_features) == (24, 24)


# ------------------------------------------------------------------------------------------------- layers_to_transform


class Stack(nn.Module):
    """A model of an unknown architecture: without ``target_modules`` all its linear layers are adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(8, 8), "act": nn.ReLU()}) for _ in range(12))
        self.head = nn.Linear(8, 2)


def adapted_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if hasattr(module, "base_layer")]


CONFIGS = {
    "smoa": lambda **more: SMoAConfig(r=2, **more),
    "surm": lambda **more: SurmConfig(**more),
    "lora": lambda **more: LoraConfig(r=2, **more),
}


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize("wanted", [1, [1, 11]])
def test_layers_to_transform_without_targets(method: str, wanted: list[int] | int) -> None:
    settings = {"layers_to_transform": wanted, "layers_pattern": "blocks"}
    adapted = attach(nn.Sequential(Stack()), CONFIGS[method](**settings), seed=0)
    indices = [1] if wanted == 1 else [1, 11]
    assert adapted_names(adapted) == [f"base_model.model.0.blocks.{index}.up" for index in indices]
    if method != "lora":  # peft alone: a second adapter too
        direct = get_peft_model(nn.Sequential(Stack()), CONFIGS[method](**settings))
        direct.add_adapter("second", CONFIGS[method](**settings))
        assert adapted_names(direct) == adapted_names(adapted)
        assert all("second" in layer.configs for layer in layers(direct))


@pytest.mark.parametrize("method", CONFIGS)
def test_layers_that_do_not_exist(method: str) -> None:
    with pytest.raises(UserError, match=r"\[40\], but Stack has no linear layer there: layers 0 to 11 are known"):
        attach(Stack(), CONFIGS[method](layers_to_transform=[40], layers_pattern="blocks"), seed=0)
    with pytest.raises(UserError, match=r"names layer 7, but no target_modules .* layers 0 to 1 are known"):
        attach(ARCHITECTURES["llama"](), CONFIGS[method](layers_to_transform=[0, 7]), seed=0)


# ------------------------------------------------------------------------------------------------------ shared weights


def tied(method: str) -> tuple[PeftModel, Tensor]:
    first, second, last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = last.weight = first.weight
    model = get_peft_model(nn.Sequential(first, second, last), METHODS[method](target_modules=["0", "1"]))
    randomise(model)
    return model.eval(), first.weight


@torch.no_grad()
@pytest.mark.parametrize("method", ["smoa_none", "smoa_blocks", "mora_sharing", "hyperadapt", "surm_circulant"])
def test_shared_weight_is_restored_and_shared_again(method: str) -> None:
    model, weight = tied(method)
    before, x = weight.clone(), torch.randn(3, 8)
    expected = model(x)
    for _ in range(2):
        model.merge_adapter()
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
        copied = copy.deepcopy(model)
        for network in (model, copied):
            network.unmerge_adapter()
            inner = network.base_model.model
            assert inner[0].base_layer.weight is inner[1].base_layer.weight is inner[2].weight
            assert torch.equal(inner[2].weight, before)
            assert torch.equal(network(x), expected)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(merged[2].weight, before)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings:UserWarning")
def test_merge_of_an_output_layer_leaves_its_tied_embedding() -> None:
    model = attach(ARCHITECTURES["gpt2"](), METHODS["mora_sharing"](target_modules=["lm_head"]), seed=0).eval()
    randomise(model)
    embedding, expected = model.get_input_embeddings().weight.clone(), logits(model, **inputs(model))
    model.merge_adapter()
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    torch.testing.assert_close(logits(model, **inputs(model)), expected, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------------------- offloaded and broken weights


@pytest.mark.parametrize("method", METHODS)
def test_offloaded_backbone(method: str, tmp_path: Path) -> None:
    """Of GPT-2: its layers have biases, which are offloaded too."""
    present = attach(ARCHITECTURES["gpt2"](), METHODS[method](), seed=0)
    base = ARCHITECTURES["gpt2"]()
    cpu_offload(base)
    model = attach(base, METHODS[method](), seed=0)
    for network in (present, model):
        randomise(network)
        logits(network, **inputs(base)).square().mean().backward()
    for own, other in zip(adapter_parameters(model), adapter_parameters(present), strict=True):
        torch.testing.assert_close(own.grad, other.grad)
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(ARCHITECTURES["gpt2"](), str(tmp_path))
    with torch.no_grad():
        expected = logits(present.eval(), **inputs(base))
        torch.testing.assert_close(logits(loaded, **inputs(base)), expected)
        if method in UPDATES:
            model.eval().merge_adapter()
            torch.testing.assert_close(logits(model, **inputs(base)), expected, rtol=1e-4, atol=1e-4)
            model.unmerge_adapter()
            torch.testing.assert_close(logits(model, **inputs(base)), expected)


@pytest.mark.parametrize("method", ["smoa_blocks", "mora_sharing", "hyperadapt", "bottleneck_houlsby"])
def test_offloaded_adapter_is_refused(method: str, tmp_path: Path) -> None:
    model = attach(ARCHITECTURES["llama"](), METHODS[method](), seed=0)
    cpu_offload(model)
    for action in (lambda: logits(model, **inputs(model)), lambda: model.save_pretrained(str(tmp_path))):
        with pytest.raises(UserError, match=r"the adapter of layer .* was offloaded by accelerate"):
            action()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "config", [SMoAConfig(r=4), SMoAConfig(r=4, partition="spectral_energy"), HyperAdaptConfig()], ids=str
)
def test_weight_that_is_not_finite(config: SMoAConfig | HyperAdaptConfig, family: str, value: float) -> None:
    base = ARCHITECTURES[family]()
    name = "model.layers.1.self_attn.k_proj" if family == "llama" else "transformer.h.1.attn.c_attn"
    weight = base.get_submodule(name).weight
    with torch.no_grad():
        (weight if family == "llama" else weight.t())[3, 5] = value
    with pytest.raises(UserError, match=rf"weight of layer {name} is {value} for output 3 and input 5"):
        attach(base, config, seed=0)


# ------------------------------------------------------------------------------------------------------ inference mode


def works_everywhere(model: PeftModel, trains: bool = True) -> None:
    batch = inputs(model)
    with torch.inference_mode():
        expected = logits(model, **batch).clone()
    with torch.no_grad():
        torch.testing.assert_close(logits(model, **batch), expected)
    if trains:
        logits(model, **batch).square().mean().backward()
        assert all(p.grad is not None for p in adapter_parameters(model))


@pytest.mark.parametrize("method", METHODS)
def test_made_in_inference_mode(method: str) -> None:
    base = ARCHITECTURES["llama"]()
    with torch.inference_mode():
        model = attach(base, METHODS[method](), seed=0)
        randomise(model)
    works_everywhere(model)


@pytest.mark.parametrize("method", ["smoa_energy", "smoa_noise", "mora_sharing", "hyperadapt", "surm_slot"])
@pytest.mark.parametrize("low_memory", [False, True])
def test_loaded_in_inference_mode(method: str, low_memory: bool, tmp_path: Path) -> None:
    saved = attach(ARCHITECTURES["llama"](), METHODS[method](), seed=0)
    randomise(saved)
    saved.save_pretrained(str(tmp_path))
    base = ARCHITECTURES["llama"]()
    with torch.inference_mode():
        model = PeftModel.from_pretrained(base, str(tmp_path), is_trainable=True, low_cpu_mem_usage=low_memory)
        torch.testing.assert_close(logits(model, **inputs(base)), logits(saved, **inputs(base)))
    works_everywhere(model)


def test_everything_in_inference_mode() -> None:
    with torch.inference_mode():
        model = get_peft_model(ARCHITECTURES["llama"](), SMoAConfig(r=4)).double()
        randomise(model)
    works_everywhere(model, trains=False)  # a backbone of inference tensors cannot be trained by any method
