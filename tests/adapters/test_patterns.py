"""Ranks and scales of single layers, as in peft's LoRA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from smoa_lightning.adapters import (
    AbbaConfig,
    HyperAdaptConfig,
    KRAdapterConfig,
    MoraConfig,
    SMoAConfig,
    SurmConfig,
    adapted_layers,
    attach,
)
from smoa_lightning.adapters.tuner import AdapterLayer
from smoa_lightning.common.errors import UserError

Maker = Callable[..., LlamaForCausalLM]
RANKS = {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6}
ALPHAS = {"up_proj": 3.0}
LORA = {"partition": "none", "num_subspaces": 1, "modulation": "none"}


def layers(model: nn.Module) -> dict[str, AdapterLayer]:
    return {module.name: module for module in model.modules() if isinstance(module, AdapterLayer)}


def test_like_lora(llama: Maker, token_ids: Tensor) -> None:
    """SMoA's corner case has the shapes, scales and outputs of a LoRA with the same patterns."""
    shared: dict[str, Any] = {"r": 4, "rank_pattern": RANKS, "alpha_pattern": ALPHAS}
    targets = ["q_proj", "v_proj", "up_proj"]
    ours = attach(llama(), SMoAConfig(**shared, **LORA, alpha=8, target_modules=targets), 0).eval()
    theirs = get_peft_model(llama(), LoraConfig(**shared, lora_alpha=8, target_modules=targets)).eval()
    reference = {name: m for name, m in theirs.base_model.model.named_modules() if hasattr(m, "lora_A")}
    assert len(layers(ours)) == len(reference) == 6
    for name, layer in layers(ours).items():
        A, B = reference[name].lora_A["default"].weight, reference[name].lora_B["default"].weight
        nn.init.normal_(B)
        assert layer.smoa_A["default"].shape == A.shape
        layer.smoa_A["default"].data.copy_(A)
        layer.smoa_B["default"].data.copy_(B.view(layer.smoa_B["default"].shape))
        assert layer.configs["default"].scaling == reference[name].scaling["default"]
    torch.testing.assert_close(ours(token_ids).logits, theirs(token_ids).logits, rtol=1e-4, atol=1e-4)
    assert {row.rank_bound for row in adapted_layers(ours)} == {2, 4, 6}


@pytest.mark.parametrize(
    ("config", "field", "expected"),
    [
        (SMoAConfig(r=4, rank_pattern=RANKS), "r", {"q_proj": 2, "k_proj": 4, "up_proj": 6}),
        (AbbaConfig(r=4, rank_pattern=RANKS), "r", {"q_proj": 2, "k_proj": 4, "up_proj": 6}),
        (KRAdapterConfig(k1=4, rank_pattern=RANKS), "k1", {"q_proj": 2, "k_proj": 4, "up_proj": 6}),
        (MoraConfig(r=4, rank_pattern=RANKS), "r", {"q_proj": 2, "k_proj": 4, "up_proj": 6}),
        (
            SurmConfig(structure="ldr", displacement_rank=4, rank_pattern=RANKS),
            "displacement_rank",
            {"q_proj": 2, "k_proj": 4, "up_proj": 6},
        ),
        (
            SurmConfig(structure="kronecker", rank_pattern={"q_proj": 10}),
            "kronecker_rank",
            {"q_proj": 10, "k_proj": None, "up_proj": None},
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | dict) else "",
)
def test_every_method_with_a_rank(config: Any, field: str, expected: Any, llama: Maker, tmp_path: Path) -> None:
    model = attach(llama(), config, 0)
    for module in layers(model).values():
        for name in module.adapter_layer_names:
            nn.init.normal_(getattr(module, name)["default"])
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(llama(), tmp_path)
    for short, rank in expected.items():
        name = next(
            name for name in layers(model) if name.endswith(f"layers.1.self_attn.{short}") or "1.mlp." + short in name
        )
        first, second = layers(model)[name], layers(again)[name]
        assert getattr(first.configs["default"], field) == getattr(second.configs["default"], field) == rank
        for container in first.adapter_layer_names:
            assert torch.equal(getattr(first, container)["default"], getattr(second, container)["default"])
    assert again.peft_config["default"].rank_pattern == config.rank_pattern


def test_alpha_of_single_layers(llama: Maker) -> None:
    for config in (
        MoraConfig(r=4, alpha=8.0, alpha_pattern=ALPHAS),
        SurmConfig(alpha=8.0, alpha_pattern=ALPHAS),
        AbbaConfig(r=4, alpha=8.0, alpha_pattern=ALPHAS),
        KRAdapterConfig(scaling=8.0, alpha_pattern=ALPHAS),
    ):
        for name, layer in layers(attach(llama(), config, 0)).items():
            found = getattr(layer.configs["default"], config.alpha_field)
            assert found == (3.0 if name.endswith("up_proj") else 8.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SurmConfig(rank_pattern=RANKS), "rank_pattern is set, but this structure has no rank"),
        (lambda: SMoAConfig(r=4, branch_ranks=[2, 2], rank_pattern=RANKS), "both decide ranks"),
        (lambda: MoraConfig(rank_pattern={"q_proj(": 2}), r"has the entry 'q_proj\(', which is not a valid regular"),
    ],
)
def test_refused_settings(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("entry", [lambda m, c: attach(m, c, 0), get_peft_model])
def test_refused_for_this_model(entry: Any, llama: Maker) -> None:
    for config, message in (
        (SMoAConfig(rank_pattern={"q_prj": 2}), r"rank_pattern has the entry 'q_prj', which matches no .* q_proj, "),
        (MoraConfig(alpha_pattern={"o_proj": 2.0}), "alpha_pattern has the entry 'o_proj', which matches no adapted"),
        (SMoAConfig(rank_pattern={"q_proj": 1}), r"does not fit layer .*q_proj: SMoAConfig.r is 1, but with"),
        (SMoAConfig(rank_pattern={"q_proj": 30}), "rank 15, but it must be between 1 and 10 for layer .*q_proj"),
        (MoraConfig(alpha_pattern={"q_proj": -1.0}), r"does not fit layer .*q_proj: MoraConfig.alpha is -1.0"),
    ):
        with pytest.raises(UserError, match=message):
            entry(llama(), config)
    assert not hasattr(HyperAdaptConfig(), "rank_pattern")
