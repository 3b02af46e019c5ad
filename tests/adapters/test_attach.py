"""attach, targets and inspection, for our own and for peft's methods; every refusal is one clear sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft import (
    AdaLoraConfig,
    HiraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    VeraConfig,
)
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from smoa_lightning.adapters import SMoAConfig, adapted_layers, adapter_bytes, attach, resolve_targets
from smoa_lightning.adapters.smoa import SmoaLinear, subspaces
from smoa_lightning.common.errors import UserError

Maker = Callable[..., Any]
SUFFIXES = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


def short_names(model: Any) -> list[str]:
    return sorted({layer.name.rpartition(".")[2] for layer in adapted_layers(model)})


@pytest.mark.parametrize(
    "config",
    [
        SMoAConfig(r=4),
        LoraConfig(r=4),
        LoraConfig(r=4, use_dora=True),
        LoraConfig(r=4, use_rslora=True),
        HiraConfig(r=4),
        AdaLoraConfig(init_r=4, target_r=2, total_step=10),
        LoHaConfig(r=4),
        IA3Config(),
        VeraConfig(r=4),
        LoKrConfig(r=4),
    ],
    ids=lambda config: type(config).__name__,
)
def test_any_method_adapts_the_same_layers(config: PeftConfig, llama: Maker, token_ids: Tensor) -> None:
    model = attach(llama(), config, seed=0)
    assert short_names(model) == sorted(SUFFIXES)
    layers = adapted_layers(model)
    assert len(layers) == 10
    first = layers[0]
    assert (first.name, first.out_features, first.in_features) == ("model.layers.0.self_attn.q_proj", 20, 20)
    assert first.kind == str(config.peft_type.value).lower()  # type: ignore[union-attr]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not isinstance(config, VeraConfig):  # its vectors are in the layers, its matrices are shared and frozen
        assert sum(layer.trainable_parameters for layer in layers) == trained
    assert config.target_modules is None  # the caller's config is not changed
    assert model.peft_config["default"].task_type == TaskType.CAUSAL_LM
    assert adapter_bytes(model) > 0
    model(token_ids, labels=token_ids).loss.backward()


@pytest.mark.parametrize("config", [PromptTuningConfig(num_virtual_tokens=3), PrefixTuningConfig(num_virtual_tokens=3)])
def test_prompt_learning_passes_through(config: PeftConfig, llama: Maker, token_ids: Tensor) -> None:
    model = attach(llama(), config, seed=0)
    assert adapted_layers(model) == []
    assert model(token_ids).logits.shape[0] == 2


@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")  # peft's own, about its own method
def test_a_method_of_other_layers_keeps_its_default(llama: Maker) -> None:
    model = attach(llama(), LNTuningConfig(), seed=0)
    assert all("norm" in layer.name for layer in adapted_layers(model))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        (r".*layers\.0\..*(q|k)_proj", ["k_proj", "q_proj"]),
        ("all-linear", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
        (["model.layers.1.mlp.up_proj"], ["up_proj"]),
    ],
)
def test_targets(targets: Any, expected: list[str], llama: Maker) -> None:
    model = attach(llama(), SMoAConfig(r=4, target_modules=targets), seed=0)
    assert short_names(model) == expected
    if isinstance(targets, str) and "0" in targets:
        assert len(adapted_layers(model)) == 2


def test_layers_to_transform_and_exclude_modules(llama: Maker) -> None:
    config = SMoAConfig(r=4, target_modules=["q_proj", "v_proj"], layers_to_transform=[1], exclude_modules=["v_proj"])
    assert [layer.name for layer in adapted_layers(attach(llama(), config, seed=0))] == [
        "model.layers.1.self_attn.q_proj"
    ]


def test_unknown_architecture_means_all_linear() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    assert resolve_targets(model, SMoAConfig()).target_modules == "all-linear"  # type: ignore[attr-defined]


@pytest.mark.parametrize("layers", [None, [0]])
@pytest.mark.parametrize("method", [SMoAConfig, LoraConfig])
def test_all_linear_leaves_routers_out(method: Any, layers: Any, token_ids: Tensor) -> None:
    settings = transformers.Llama4TextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=8, intermediate_size_mlp=8, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    backbone = transformers.Llama4ForCausalLM(settings)
    targets = None if layers else "all-linear"
    config = method(r=2, target_modules=targets, layers_to_transform=layers)
    with pytest.raises(UserError, match=r"matches model.layers.0.feed_forward.router, but Llama4Router is no plain"):
        attach(backbone, method(r=2, target_modules=["router"]), seed=0)
    model = attach(backbone, config, seed=0)
    expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert set(short_names(model)) == expected
    model(token_ids % 64, labels=token_ids % 64).loss.backward()


def test_a_linear_layer_with_its_own_forward_is_adapted() -> None:
    config = transformers.FalconConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    resolved: Any = resolve_targets(transformers.FalconForCausalLM(config), LoraConfig(target_modules="all-linear"))
    assert resolved.target_modules == "all-linear"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SMoAConfig(target_modules=["q_porj"]), ["'q_porj'", "LlamaForCausalLM", "q_proj"]),
        (LoraConfig(target_modules=["q_proj", "c_attn"]), ["'c_attn'", "matches no module"]),
        (SMoAConfig(target_modules=r"layers\.0\.self_attn\.q_proj"), ["regular expression", "model.layers.0"]),
        (SMoAConfig(target_modules="q_proj("), ["not a valid regular expression"]),
        (SMoAConfig(target_modules=[]), ["target_modules is empty", "q_proj"]),
        (SMoAConfig(target_modules=["q_proj"], exclude_modules=["q_proj"]), ["no module", "left to adapt"]),
        (SMoAConfig(target_modules=["q_proj"], layers_to_transform=[7]), ["no module", "layers_to_transform"]),
        (SMoAConfig(target_modules=["self_attn"]), ["layers.0.self_attn", "LlamaAttention", "nn.Linear or Conv1D"]),
        (SMoAConfig(target_modules=["embed_tokens"]), ["embed_tokens", "Embedding"]),
        (SMoAConfig(r=16, num_subspaces=12), ["num_subspaces is 12", "between 1 and 10", "self_attn.k_proj (10 x 20)"]),
        (SMoAConfig(r=16, num_subspaces=2), ["subspace 1 of 2 the rank 8", "between 1 and 5", "k_proj (10 x 20)"]),
        (SMoAConfig(r=11, num_subspaces=1, partition="none"), ["rank 11", "between 1 and 10", "k_proj"]),
        (SMoAConfig(r=4, branch_ranks=[3, 1], num_subspaces=2, target_modules="all-linear"), None),
        (LoraConfig(r=0), ["peft refuses this LoraConfig", "positive"]),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(config: PeftConfig, words: list[str] | None, llama: Maker) -> None:
    backbone = llama()
    if words is None:
        attach(backbone, config, seed=0)
        return
    with pytest.raises(UserError) as caught:
        attach(backbone, config, seed=0)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message
    assert not any(isinstance(module, SmoaLinear) for module in backbone.modules())


def test_meta_device_gives_the_numbers_without_spectra(llama: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    real = attach(llama(), SMoAConfig(r=4), seed=0)
    with torch.device("meta"):
        backbone = LlamaForCausalLM(llama().config)
    monkeypatch.setattr(subspaces, "spectrum", lambda *_: pytest.fail("a spectrum was computed"))
    model = attach(backbone, SMoAConfig(r=4), seed=0)
    assert adapted_layers(model) == adapted_layers(real)
    assert adapter_bytes(model) == adapter_bytes(real)


@pytest.mark.parametrize(
    ("config", "bound"),
    [
        (LoraConfig(r=4), 4),
        (LoraConfig(r=4, use_dora=True), 20),
        (HiraConfig(r=4), 20),
        (SMoAConfig(r=4), 20),
        (SMoAConfig(r=4, modulation="none"), 4),
        (SMoAConfig(r=4, modulation="none", rank_split="per_subspace"), 8),
    ],
)
def test_rank_bounds(config: PeftConfig, bound: int, llama: Maker) -> None:
    assert adapted_layers(attach(llama(), config, seed=0))[0].rank_bound == bound


def test_trained_tokens_inside_lora_change_as_many_ranks(llama: Maker) -> None:
    model = attach(llama(), LoraConfig(r=2, trainable_token_indices=[1, 2]), seed=0)
    embedding = adapted_layers(model)[0]
    assert "embed_tokens" in embedding.name
    assert embedding.rank_bound == 2


@pytest.mark.parametrize("indices", [[10**6], [-1], {"embed_tokens": [10**6]}])
def test_tokens_outside_of_the_vocabulary_are_refused(indices: Any, llama: Maker) -> None:
    with pytest.raises(UserError, match=r"trainable_token_indices has the token .* whole numbers from 0 to"):
        attach(llama(), LoraConfig(r=2, trainable_token_indices=indices), seed=0)
