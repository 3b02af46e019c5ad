"""A scale of 0, with which an adapter would never have an effect, is refused for every method that has a scale."""

from __future__ import annotations

from typing import Any

import peft
import pytest
from torch import nn

from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.common.errors import UserError

ZERO: dict[str, tuple[Any, str]] = {
    "LoRA": (peft.LoraConfig(r=2, lora_alpha=0), "LoraConfig.lora_alpha"),
    "rsLoRA": (peft.LoraConfig(r=2, lora_alpha=0, use_rslora=True), "LoraConfig.lora_alpha"),
    "DoRA": (peft.LoraConfig(r=2, lora_alpha=0, use_dora=True), "LoraConfig.lora_alpha"),
    "of a layer": (peft.LoraConfig(r=2, alpha_pattern={"2": 0}), "LoraConfig.alpha_pattern['2']"),
    "LoHa": (peft.LoHaConfig(r=2, alpha=0), "LoHaConfig.alpha"),
    "LoKr": (peft.LoKrConfig(r=2, alpha=0), "LoKrConfig.alpha"),
    "RandLoRA": (peft.RandLoraConfig(r=2, randlora_alpha=0), "RandLoraConfig.randlora_alpha"),
    "Supra": (peft.SupertuningConfig(r=2, lora_alpha=0), "SupertuningConfig.lora_alpha"),
    "FourierFT": (peft.FourierFTConfig(n_frequency=4, scaling=0), "FourierFTConfig.scaling"),
}


@pytest.mark.parametrize("method", ZERO)
def test_a_scale_of_zero_is_refused(method: str) -> None:
    config, key = ZERO[method]
    config.target_modules = ["0", "2"]
    with pytest.raises(UserError) as refused:
        attach(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)), config, seed=0)
    layer = "2" if method == "of a layer" else "0"
    assert str(refused.value) == (
        f"{key} is 0, which multiplies the update of layer {layer} by 0: it must be another number"
    )


def test_a_scale_of_zero_of_smoa_is_refused() -> None:
    with pytest.raises(UserError, match=r"SMoAConfig\.alpha is 0, but must be above 0"):
        SMoAConfig(alpha=0)


@pytest.mark.parametrize("alpha", [-1, 0.5])
def test_other_scales_are_taken(alpha: float) -> None:
    config = peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=["0"])  # type: ignore[arg-type]
    attach(nn.Sequential(nn.Linear(16, 16)), config, seed=0)


def test_an_alpha_of_zero_with_another_meaning_is_taken() -> None:
    """AdaLoRA then multiplies by r; Supertuning holds 0 for a part that is switched off."""
    for config in (peft.SupertuningConfig(), peft.AdaLoraConfig(lora_alpha=0, total_step=10)):
        config.target_modules = ["0"]
        attach(nn.Sequential(nn.Linear(16, 16)), config, seed=0)
