"""Backbones held in 8 or 4 bits: the same function as over the dequantised weight, on a CPU, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from smoa_lightning.adapters import HyperAdaptConfig, MoraConfig, SMoAConfig, SurmConfig, attach
from smoa_lightning.adapters.smoa import SmoaLinear
from smoa_lightning.adapters.tuner import frozen_weight
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate, provenance
from smoa_lightning.backbones.quantization import prepare_quantized, quantized_layers
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.adapter_folder import load_adapter, save_adapter
from smoa_lightning.training.module import FineTuneModule

from .architectures import ARCHITECTURES

INSTALLED = importlib.util.find_spec("bitsandbytes") is not None
needs_library = pytest.mark.skipif(not INSTALLED, reason="bitsandbytes is not installed (extra 'quantization')")
# bitsandbytes has its 8-bit product on CPUs in half precision only, and says so once for every layer
pytestmark = pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast:UserWarning")

KINDS = ["int8", "nf4"]
WEIGHTED: dict[str, Callable[[], Any]] = {
    "blocks": lambda: SMoAConfig(r=4),
    "energy": lambda: SMoAConfig(r=4, partition="spectral_energy"),
    "grid": lambda: SMoAConfig(r=4, partition="grid_blocks"),
    "hyperadapt": HyperAdaptConfig,
}
OURS = {**WEIGHTED, "mora": lambda: MoraConfig(r=4), "surm": lambda: SurmConfig(structure="circulant")}
PEFT: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=4),
    "hira": lambda: peft.HiraConfig(r=4),
    "vera": lambda: peft.VeraConfig(r=4),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("float")
    ARCHITECTURES["llama"]().save_pretrained(place)  # type: ignore[attr-defined]
    return place


def load(folder: Path, kind: str | None, **more: Any) -> PreTrainedModel:
    config = BackboneConfig("local", path=str(folder), quantization=kind, **more)  # type: ignore[arg-type]
    return load_model(config, locate(config))


def in_float(model: PreTrainedModel) -> PreTrainedModel:
    """The same network with every quantised layer replaced by an nn.Linear that holds its dequantised weight."""
    plain = copy.deepcopy(model)
    held = set(quantized_layers(plain))
    for name, layer in list(plain.named_modules()):
        if layer in held:
            weight = frozen_weight(layer)
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
            linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
            if layer.bias is not None:
                linear.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
            plain.set_submodule(name, linear)
    return plain


def perturb(model: nn.Module) -> None:
    """Move every trained parameter away from its start, the same way in every model."""
    generator = torch.Generator().manual_seed(11)
    for _, parameter in sorted((n, p) for n, p in model.named_parameters() if p.requires_grad):
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def outcome(model: nn.Module, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits in training mode, where 8-bit layers do not round activations on a CPU, and all gradients."""
    model.train()
    model.zero_grad()
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_(True)
    output = model(inputs_embeds=embedded, labels=ids)
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert embedded.grad is not None
    return output.logits.detach(), {**gradients, "inputs": embedded.grad.clone()}


@needs_library
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", {**OURS, **PEFT})
def test_the_function_is_that_over_the_dequantised_weight(
    method: str, kind: str, folder: Path, token_ids: Tensor
) -> None:
    """Outputs and gradients, those of the inputs too."""
    quantised = load(folder, kind)
    config = {**OURS, **PEFT}[method]()
    found, expected = (attach(model, config, seed=0) for model in (quantised, in_float(quantised)))
    assert len(list(quantized_layers(found))) == 14
    assert not list(quantized_layers(expected))
    for model in (found, expected):
        perturb(model)
    (logits, gradients), (reference, references) = (outcome(model, token_ids) for model in (found, expected))
    torch.testing.assert_close(logits, reference, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == references.keys()
    assert len(gradients) > 10
    for name, gradient in references.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@needs_library
def test_eight_bit_layers_keep_their_own_product(folder: Path) -> None:
    """In evaluation LLM.int8() rounds activations: a fresh adapter must not change that, and adds its update to it."""
    model = load(folder, "int8")
    x = torch.randn(3, 20)
    base = model.model.layers[0].self_attn.q_proj
    own = base(x)
    weight = frozen_weight(base)
    assert (own - x @ weight.T).abs().max() > 1e-4
    attach(model, SMoAConfig(r=4), seed=0)
    layer = model.model.layers[0].self_attn.q_proj
    assert torch.equal(layer(x), own)
    perturb(layer)
    with torch.no_grad():
        expected = own + x @ layer.get_delta_weight("default").T
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@needs_library
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["blocks", "energy"])
def test_keeping_the_dequantised_weight_changes_nothing(
    method: str, kind: str, folder: Path, token_ids: Tensor
) -> None:
    results = []
    for dequantize in ("per_forward", "cached"):
        model = attach(load(folder, kind, dequantize=dequantize), WEIGHTED[method](), seed=0)
        perturb(model)
        results.append(outcome(model, token_ids))
        layers = [module for module in model.modules() if isinstance(module, SmoaLinear)]
        same = [frozen_weight(layer.get_base_layer()) is frozen_weight(layer.get_base_layer()) for layer in layers]
        assert set(same) == {dequantize == "cached"}
    (logits, gradients), (again, gradients_again) = results
    assert torch.equal(logits, again)
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)


@needs_library
def test_no_dequantised_weight_waits_for_backward(folder: Path, token_ids: Tensor) -> None:
    """Autograd keeps W of a float layer, which costs nothing, and must not keep one that was made for the forward."""
    model = attach(load(folder, "nf4"), SMoAConfig(r=4), seed=0)
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    counts = []
    for network in (model, in_float(model)):
        layers = [module for module in network.modules() if isinstance(module, SmoaLinear)]
        shapes = {(layer.out_features, layer.in_features) for layer in layers}
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network.train()(token_ids)
        counts.append(sum(tuple(tensor.shape) in shapes and tensor.is_floating_point() for tensor in saved))
    assert counts[0] == 0
    assert counts[1] >= len(layers) == 10


@needs_library
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_before_training_leaves_weights_and_gradients(kind: str, folder: Path, token_ids: Tensor) -> None:
    """Some CPUs would repack 4-bit weights in evaluation, with rounding and without gradients."""
    model = load(folder, kind).eval()
    before = [frozen_weight(layer).clone() for layer in quantized_layers(model)]
    with torch.no_grad():
        model(token_ids)
    assert all(torch.equal(w, frozen_weight(layer)) for w, layer in zip(before, quantized_layers(model), strict=True))
    adapted = attach(model, SMoAConfig(r=4), seed=0)
    with torch.inference_mode():
        adapted.eval()(token_ids)
    _, gradients = outcome(adapted, token_ids)
    assert all(g.abs().sum() > 0 for n, g in gradients.items() if "smoa_B" in n)


@needs_library
def test_a_repacked_weight_is_refused(folder: Path) -> None:
    layer = load(folder, "nf4").model.layers[0].self_attn.q_proj
    layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(UserError, match="already repacked for inference"):
        prepare_quantized(layer)


@needs_library
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_and_bfloat16(kind: str, folder: Path, token_ids: Tensor) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load(folder, kind, dtype="bfloat16", gradient_checkpointing=checkpointing)
        adapted = attach(model, SMoAConfig(r=4), seed=0)
        perturb(adapted)
        assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
        assert frozen_weight(model.model.layers[0].mlp.up_proj.get_base_layer()).dtype == torch.bfloat16
        gradients.append(outcome(adapted, token_ids)[1])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))


@needs_library
@pytest.mark.parametrize("kind", KINDS)
def test_gpt2_stores_the_transposed_weight(kind: str, tmp_path: Path, token_ids: Tensor) -> None:
    """Conv1D stores W^T; its quantised layer stores W."""
    plain = ARCHITECTURES["gpt2"]()
    plain.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    model = load(tmp_path, kind)
    error = frozen_weight(model.transformer.h[0].mlp.c_fc) - plain.transformer.h[0].mlp.c_fc.weight.T
    assert error.abs().max() < 0.12
    found, expected = (attach(m, SMoAConfig(r=4), seed=0) for m in (model, in_float(model)))
    for adapted in (found, expected):
        perturb(adapted)
    (logits, _), (reference, _) = (outcome(adapted, token_ids) for adapted in (found, expected))
    torch.testing.assert_close(logits, reference, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------- saving, loading, merging


@needs_library
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", WEIGHTED)
def test_save_and_load(method: str, kind: str, folder: Path, tmp_path: Path, token_ids: Tensor) -> None:
    """Onto the backbone held the same way, or dequantised to float, where it also merges; onto no other."""
    model = attach(load(folder, kind), WEIGHTED[method](), seed=0)
    perturb(model)
    model.save_pretrained(tmp_path)
    expected = model.eval()(token_ids).logits
    again = peft.PeftModel.from_pretrained(load(folder, kind), str(tmp_path)).eval()
    assert torch.equal(again(token_ids).logits, expected)

    dequantised = load(folder, kind).dequantize(dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(dequantised, str(tmp_path)).merge_and_unload()
    reference = outcome(model, token_ids)[0]
    torch.testing.assert_close(merged(token_ids).logits, reference, rtol=1e-4, atol=1e-4)

    with pytest.raises(UserError, match=f"made for a base weight stored in {kind} .here: floating point.*quantization"):
        peft.PeftModel.from_pretrained(load(folder, None), str(tmp_path))
    other = "nf4" if kind == "int8" else "int8"
    with pytest.raises(UserError, match=f"stored in {kind} .here: {other}.*with quantization {kind}"):
        peft.PeftModel.from_pretrained(load(folder, other), str(tmp_path))


@needs_library
def test_an_adapter_of_a_float_backbone_is_refused(folder: Path, tmp_path: Path) -> None:
    attach(load(folder, None), SMoAConfig(r=4), seed=0).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"stored in floating point \(here: nf4\).*with quantization null"):
        peft.PeftModel.from_pretrained(load(folder, "nf4"), str(tmp_path))


@needs_library
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", OURS)
def test_merging_is_refused(method: str, kind: str, folder: Path) -> None:
    model = attach(load(folder, kind), OURS[method](), seed=0)
    with pytest.raises(UserError, match=rf"q_proj stores its weight in {kind}.*dequantize\(\)"):
        model.merge_adapter()


# ------------------------------------------------------------------------------------------------- the whole framework


@needs_library
@pytest.mark.parametrize(("kind", "strategy"), [("int8", "smoa"), ("nf4", "smoa"), ("nf4", "lora")])
def test_training_saving_and_loading_through_the_module(
    kind: str, strategy: str, tiny_backbone: Path, piqa_folder: Path, tmp_path: Path
) -> None:
    config = SMoAConfig(r=4) if strategy == "smoa" else peft.LoraConfig(r=4)
    backbone = BackboneConfig("local", path=str(tiny_backbone), quantization=kind)  # type: ignore[arg-type]
    module = FineTuneModule(backbone, config)
    data = TaskDataModule("piqa", "local", path=str(piqa_folder), batch_size=4, selection_rows=8)
    data.tokenizer = module.tokenizer
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", logger=False, max_steps=2, limit_val_batches=1, **quiet)  # type: ignore[arg-type]
    trainer.fit(module, datamodule=data)  # scores selection rows first
    assert all(p.grad is None or p.requires_grad for p in module.network.parameters())
    facts: dict[str, Any] = {"selection": {"score": None, "metric": "acc"}, "task": "piqa", "which": "last", "step": 2}
    save_adapter(module, tmp_path / "adapter", {**facts, "data_source": "local"})
    kept = json.loads((tmp_path / "adapter" / "smoa_lightning.json").read_text())
    assert kept["backbone"]["quantization"] == kept["location"]["quantization"] == kind
    again, _ = load_adapter(tmp_path / "adapter")
    ids = torch.arange(3, 23).view(2, 10)
    assert torch.equal(again(ids).logits, module.network.eval()(ids).logits)


def test_a_missing_library_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smoa_lightning.backbones.quantization.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'nf4', but bitsandbytes is not installed.*smoa-lightning\[quantization\]"):
        load(folder, "nf4")


@needs_library
def test_a_checkpoint_that_is_stored_quantised(folder: Path, tmp_path: Path) -> None:
    """It is loaded as it is, and not quantised twice."""
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings).save_pretrained(tmp_path)
    model = load(tmp_path, None)
    reference = load(folder, "nf4")
    pairs = zip(quantized_layers(model), quantized_layers(reference), strict=True)
    assert all(torch.equal(frozen_weight(a), frozen_weight(b)) for a, b in pairs)
    config = BackboneConfig("local", path=str(tmp_path))
    assert provenance(locate(config), model)["quantization"] == "nf4"
    assert provenance(locate(config), load(folder, None))["quantization"] is None
    with pytest.raises(UserError, match=r"'int8', but the weights of .* are already quantised"):
        load(tmp_path, "int8")
