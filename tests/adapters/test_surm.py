"""What is special about SURM: parameter counts, coincidences with peft's C3A and LoKr, its two slots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import C3AConfig, LoKrConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters import SurmConfig, SurmLinear, adapted_layers, attach
from smoa_lightning.adapters.surm import structured
from smoa_lightning.common.errors import UserError

from .surm_layers import randomise, surm_layers

Maker = Callable[..., Any]
UPDATES: list[dict[str, Any]] = [
    {"structure": "circulant"},
    {"structure": "toeplitz"},
    {"structure": "toeplitz_hadamard"},
    {"structure": "kronecker"},
    {"structure": "ldr", "displacement_rank": 3},
    {"structure": "circulant", "block_size": 6},
    {"structure": "toeplitz", "block_size": 7},
    {"structure": "toeplitz_hadamard", "block_size": 7},
    {"structure": "kronecker", "block_size": 6, "kronecker_rank": 3},
    {"structure": "ldr", "block_size": 5, "displacement_rank": 2},
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def layer(base: nn.Module, randomised: bool = True, **settings: Any) -> SurmLinear:
    """A layer with one adapter whose factors are all random."""
    made = SurmLinear(base, "layer")
    made.set_adapter("default")
    made.update_layer("default", SurmConfig(**settings))
    if randomised:
        nn.init.normal_(made.surm_left["default"])
    return made


# ---------------------------------------------------------------------------------------------------- counts and start


def test_parameter_counts_of_smollm2() -> None:
    """The table's formulas on the shapes of SmolLM2-135M, by hand; nothing is computed."""
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 64}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    square, narrow, wide = (576, 576), (192, 576), (1536, 576)  # q; k and v; up, and down as its transpose
    assert 30 * (2 * 576 * 3 + 2 * 1536 * 2) == 288_000
    for settings, expected in (
        ({"structure": "circulant"}, 288_000),
        ({"structure": "toeplitz"}, 288_000),
        ({"structure": "ldr", "displacement_rank": 4}, 4 * 288_000),
        ({"structure": "kronecker"}, 30 * (sum(square) + 2 * sum(narrow) + 2 * sum(wide))),
        ({"structure": "circulant", "block_size": 192}, 30 * 2 * 192 * (3 * 3 + 2 * 3 + 2 * 8 * 3)),
        ({"structure": "ldr", "block_size": 500, "displacement_rank": 2}, 30 * 4 * 500 * (2 * 2 + 2 * 2 + 2 * 4 * 2)),
        ({"structure": "circulant", "slot": "adapter"}, 30 * 2 * (2 * 576 + 576)),
        ({"structure": "ldr", "slot": "adapter", "displacement_rank": 3, "placement": "pfeiffer"}, 30 * 7 * 576),
        ({"structure": "kronecker", "slot": "adapter"}, 30 * 2 * 3 * 576),
    ):
        with torch.device("meta"):
            model = attach(LlamaForCausalLM(LlamaConfig(**sizes, **heads)), SurmConfig(**settings), seed=0)
        assert model.get_nb_trainable_parameters()[0] == expected, settings


@pytest.mark.parametrize("slot", ["update", "adapter"])
@pytest.mark.parametrize("settings", UPDATES, ids=str)
def test_starts_as_the_backbone_and_learns(
    settings: dict[str, Any], slot: Any, llama: Maker, token_ids: Tensor
) -> None:
    config = SurmConfig(**settings, slot=slot, dropout=0.1)
    model = attach(llama(), config, seed=0).train()
    output = model(token_ids, labels=token_ids)
    torch.testing.assert_close(output.logits, llama()(token_ids).logits, rtol=0, atol=0)
    output.loss.backward()
    for module in surm_layers(model):
        assert not module.surm_left["default"].any()
        assert module.surm_left["default"].grad.any()
        assert not module.surm_right["default"].grad.any()
        spread = module.surm_right["default"].std()
        if settings["structure"] == "kronecker":
            bound = module.surm_right["default"].shape[-1] ** -0.5
            assert 0.4 * bound < spread < 0.75 * bound  # uniform within the bound: 0.58
        else:
            assert 0.01 < spread < 0.03
    assert len(surm_layers(model)) == (10 if slot == "update" else 4)


# ------------------------------------------------------------------------------------------------- the update itself


@pytest.mark.parametrize("settings", UPDATES, ids=str)
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_forward_is_weight_plus_update(kind: str, settings: dict[str, Any]) -> None:
    base: Any = nn.Linear(18, 12) if kind == "linear" else Conv1D(12, 18)
    base = base.double()
    adapted = layer(base, **settings, alpha=0.5)
    weight = base.weight if kind == "linear" else base.weight.t()
    delta = adapted.dense_update("default")
    assert delta.shape == (12, 18)
    x = torch.randn(2, 3, 18, dtype=torch.float64)
    torch.testing.assert_close(adapted(x), F.linear(x, weight + delta, base.bias), rtol=1e-10, atol=1e-10)
    plain = layer(base, randomised=False, **settings)
    for name in ("surm_left", "surm_right"):
        getattr(plain, name)["default"].data.copy_(getattr(adapted, name)["default"])
    torch.testing.assert_close(delta, 0.5 * plain.dense_update("default"))
    assert torch.linalg.matrix_rank(delta) <= adapted.rank_bound("default")
    before, expected = base.weight.detach().clone(), adapted(x)
    adapted.merge(safe_merge=True)
    assert not torch.equal(base.weight, before)
    torch.testing.assert_close(adapted(x), expected, rtol=1e-10, atol=1e-10)
    adapted.unmerge()
    assert torch.equal(base.weight, before)


@pytest.mark.parametrize("structure", ["circulant", "toeplitz", "toeplitz_hadamard", "ldr"])
def test_large_layers_go_through_fft(structure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = structured.convolve
    monkeypatch.setattr(structured, "convolve", lambda *a, **k: calls.append(1) or original(*a, **k))
    adapted = layer(nn.Linear(400, 301, bias=False), structure=structure, alpha=0.01)
    x = torch.randn(5, 400)
    weight = adapted.base_layer.weight + adapted.dense_update("default")
    torch.testing.assert_close(adapted(x), x @ weight.T, rtol=1e-4, atol=1e-4)
    assert calls


@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        ({"structure": "circulant"}, 12),
        ({"structure": "toeplitz"}, 12),
        ({"structure": "ldr"}, 12),
        ({"structure": "kronecker", "kronecker_rank": 1}, 1),
        ({"structure": "kronecker", "kronecker_rank": 2}, 4),
        ({"structure": "kronecker", "kronecker_rank": 3}, 9),
        ({"structure": "kronecker", "kronecker_rank": 6}, 6),
        ({"structure": "kronecker"}, 9),
        ({"structure": "kronecker", "block_size": 18, "kronecker_rank": 1}, 1),
        ({"structure": "kronecker", "block_size": 6, "kronecker_rank": 1}, 6),  # 2 x 3 tiles of rank 1
    ],
    ids=str,
)
def test_rank_bound_is_reached(settings: dict[str, Any], bound: int) -> None:
    adapted = layer(nn.Linear(18, 12).double(), **settings)
    assert adapted.rank_bound("default") == bound
    assert torch.linalg.matrix_rank(adapted.dense_update("default")) == bound


# ------------------------------------------------------------------------------------------- coincidences with peft


def peft_layer(module: nn.Module, config: Any) -> Any:
    config.target_modules = ["0"]
    return get_peft_model(nn.Sequential(module), config).base_model.model[0]


@pytest.mark.parametrize(("d_out", "d_in", "block"), [(12, 12, 12), (12, 12, 4), (18, 12, 6), (12, 18, 3)])
def test_circulant_tiles_are_c3a(d_out: int, d_in: int, block: int) -> None:
    """C3A has one kernel w per block, ``w_{(j-i) mod b} / d_in``: ours with a = 1 and b that kernel reversed."""
    base = nn.Linear(d_in, d_out)
    reference = peft_layer(base, C3AConfig(block_size=block, init_weights="gaussian"))
    kernel = reference.c3a_kernel["default"].detach()
    ours = layer(base, structure="circulant", block_size=block)
    ours.surm_right["default"].data.fill_(1)
    ours.surm_left["default"].data.copy_(torch.cat([kernel[..., :1], kernel[..., 1:].flip(-1)], -1) / d_in)
    torch.testing.assert_close(ours.get_delta_weight("default"), reference.get_delta_weight("default"))
    if d_in == d_out:  # else C3A's forward divides by d_out where its merge divides by d_in (peft 0.21)
        x = torch.randn(5, d_in)
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("d_out", "d_in", "rank"), [(16, 16, 4), (9, 12, 3), (25, 25, 5)])
def test_kronecker_is_lokr(d_out: int, d_in: int, rank: int) -> None:
    """LoKr with both factors dense has ΔW = w1 ⊗ w2 (alpha / r): ours where w1 is d_out/r x r and w2 r x d_in/r."""
    base = nn.Linear(d_in, d_out)
    reference = peft_layer(base, LoKrConfig(r=64, alpha=64, decompose_factor=rank, init_weights=False))
    w1, w2 = (getattr(reference, name)["default"].detach() for name in ("lokr_w1", "lokr_w2"))
    assert (w1.shape, w2.shape) == ((d_out // rank, rank), (rank, d_in // rank))
    ours = layer(base, structure="kronecker", kronecker_rank=rank)
    ours.surm_left["default"].data[0, 0] = w1
    ours.surm_right["default"].data[0, 0] = w2
    torch.testing.assert_close(ours.get_delta_weight("default"), reference.get_delta_weight("default"))
    x = torch.randn(5, d_in)
    torch.testing.assert_close(ours(x), reference(x), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------- in a whole model


@pytest.mark.parametrize("settings", UPDATES, ids=str)
def test_save_and_load(settings: dict[str, Any], gpt2: Maker, token_ids: Tensor, tmp_path: Path) -> None:
    model = attach(gpt2(), SurmConfig(**settings), seed=0)
    randomise(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(gpt2(), tmp_path)
    for ours, theirs in zip(surm_layers(model), surm_layers(again), strict=True):
        for name in ours.adapter_layer_names:
            assert torch.equal(getattr(ours, name)["default"], getattr(theirs, name)["default"])
    # A GEMM may round otherwise where a tensor of the file is aligned otherwise.
    torch.testing.assert_close(again(token_ids).logits, model(token_ids).logits, rtol=1e-5, atol=1e-5)


def test_second_adapter_with_a_regular_expression(llama: Maker) -> None:
    """It matches parts of the adapted layers too, which are no targets."""
    model = attach(llama(), SurmConfig(target_modules=["q_proj"]), 0)
    model.add_adapter("second", SurmConfig(target_modules=r".*(q_proj|k_proj).*"))
    assert [sorted(layer.configs) for layer in surm_layers(model)] == [["default", "second"], ["second"]] * 2


def test_adapted_layers_of_both_slots(llama: Maker) -> None:
    updates = adapted_layers(attach(llama(), SurmConfig(structure="kronecker"), seed=0))
    assert [(row.out_features, row.in_features, row.rank_bound) for row in updates[:2]] == [(20, 20, 16), (10, 20, 8)]
    slots = adapted_layers(attach(llama(), SurmConfig(slot="adapter"), seed=0))
    assert {(row.out_features, row.in_features, row.trainable_parameters) for row in slots} == {(20, 20, 60)}


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"structure": "toepliz"}, r"structure is 'toepliz', but must be one of .*; nearest: toeplitz"),
        ({"slot": "adaptor"}, r"slot is 'adaptor', but must be one of update, adapter; nearest: adapter"),
        ({"displacement_rank": 0, "structure": "ldr"}, "displacement_rank is 0, but must be an integer of at least 1"),
        ({"displacement_rank": 2}, "displacement_rank is 2, but has no effect under structure 'circulant'"),
        ({"kronecker_rank": 4}, "kronecker_rank is 4, but has no effect under structure 'circulant'"),
        ({"block_size": 0}, "block_size is 0, but must be an integer of at least 1"),
        ({"alpha": -1.0}, "alpha is -1.0, but must be above 0"),
        ({"dropout": 1.0}, "dropout is 1.0, but must be at least 0 and less than 1"),
        ({"activation": "relu"}, "activation is 'relu', but has no effect under slot 'update'"),
        ({"slot": "adapter", "activation": "gellu"}, r"activation is 'gellu', .* nearest: gelu"),
        ({"slot": "adapter", "activation": "prelu"}, "activation is 'prelu', but must be .* without parameters"),
        ({"slot": "adapter", "activation": "sigmoid"}, "activation is 'sigmoid', but its value at 0 is not 0"),
        ({"placement": "pfeiffer"}, "placement is 'pfeiffer', but has no effect under slot 'update'"),
        ({"bias": "lora_only"}, "bias is 'lora_only', but must be one of none, all, surm_only"),
    ],
    ids=str,
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SurmConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_size": 21}, r"block_size is 21, but must be between 1 and 20 for layer .*q_proj \(20 x 20\)"),
        ({"structure": "ldr", "displacement_rank": 21}, "displacement_rank is 21, but must be between 1 and 20 for"),
        (
            {"structure": "ldr", "displacement_rank": 5, "block_size": 4},
            "displacement_rank is 5, but must be between 1 and 4 for",
        ),
        (
            {"structure": "kronecker", "kronecker_rank": 4, "target_modules": ["k_proj"]},
            r"kronecker_rank is 4, but must divide both sizes 10 and 20 of layer .*k_proj \(10 x 20\); nearest: 5",
        ),
        (
            {"structure": "kronecker", "kronecker_rank": 4, "block_size": 6},
            r"kronecker_rank is 4, but must divide the block size 6 of .*; nearest: 3",
        ),
        ({"target_modules": ["input_layernorm"]}, "cannot adapt layer .*input_layernorm: it is LlamaRMSNorm"),
        ({"slot": "adapter", "block_size": 21}, r"block_size is 21, but must be between 1 and 20 for layer .*o_proj"),
    ],
    ids=str,
)
@pytest.mark.parametrize("entry", ["attach", "get_peft_model"])
def test_settings_that_do_not_fit_the_model(settings: dict[str, Any], message: str, entry: str, llama: Maker) -> None:
    """One sentence, and the model is as it was."""
    model = llama()
    with pytest.raises(UserError, match=message):
        attach(model, SurmConfig(**settings), 0) if entry == "attach" else get_peft_model(model, SurmConfig(**settings))
    assert not surm_layers(model)
