"""Updates in the orientation that peft expects: conversion to LoRA, and peft's own update of the same LoRA."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, convert_to_lora, get_peft_model, set_peft_model_state_dict

from smoa_lightning.adapters import SMoAConfig, attach

from .architectures import ARCHITECTURES, inputs, logits
from .test_matrix import METHODS, layers, randomise

# In the tiny GPT-2 attn.c_proj and mlp.c_proj are square (20 x 20, 20 x 80 after mlp.c_fc); the others are not.
SQUARE, OBLONG = ["attn.c_proj"], ["attn.c_attn", "mlp.c_fc", "mlp.c_proj"]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # peft sets it and says so
@pytest.mark.parametrize("targets", [SQUARE, OBLONG], ids=["square", "oblong"])
@pytest.mark.parametrize("method", ["smoa_blocks", "mora_rotation", "hyperadapt", "abba", "surm_toeplitz"])
def test_lora_over_conv1d_equals_the_adapter(method: str, targets: list[str]) -> None:
    model = attach(ARCHITECTURES["gpt2"](), METHODS[method](target_modules=targets), seed=0).eval()
    randomise(model)
    config, state = convert_to_lora(model, rank=20)
    converted = get_peft_model(ARCHITECTURES["gpt2"](), config)
    set_peft_model_state_dict(converted, state)
    expected = logits(model, **inputs(model))
    torch.testing.assert_close(logits(converted.eval(), **inputs(model)), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_lora_over_linear_layers_equals_the_adapter() -> None:
    model = attach(ARCHITECTURES["llama"](), METHODS["hyperadapt"](target_modules=["q_proj", "up_proj"]), seed=0).eval()
    randomise(model)
    config, state = convert_to_lora(model, rank=20)
    converted = get_peft_model(ARCHITECTURES["llama"](), config)
    set_peft_model_state_dict(converted, state)
    expected = logits(model, **inputs(model))
    torch.testing.assert_close(logits(converted.eval(), **inputs(model)), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("targets", [SQUARE, OBLONG], ids=["square", "oblong"])
def test_update_has_the_orientation_of_peft(targets: list[str]) -> None:
    """SMoA without partition and modulation is LoRA: peft's own update of the same factors on the same layers."""
    config = SMoAConfig(r=4, partition="none", num_subspaces=1, modulation="none", target_modules=targets)
    ours = attach(ARCHITECTURES["gpt2"](), config, seed=0)
    randomise(ours)
    lora = LoraConfig(r=4, lora_alpha=4, target_modules=targets, fan_in_fan_out=True)
    theirs = get_peft_model(ARCHITECTURES["gpt2"](), lora)
    for layer in layers(ours):
        other = theirs.get_submodule(f"base_model.model.{layer.name}")
        other.lora_A["default"].weight.copy_(layer.smoa_A["default"])
        other.lora_B["default"].weight.copy_(layer.smoa_B["default"])
        delta = layer.get_delta_weight("default")
        assert delta.shape == layer.base_layer.weight.shape
        torch.testing.assert_close(delta, other.get_delta_weight("default"))
        torch.testing.assert_close(delta.t(), layer.dense_update("default"))
