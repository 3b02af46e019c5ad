"""SURM in the adapter slot: its formula, where it stands, and that it cannot be merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from smoa_lightning.adapters import SurmConfig, SurmLinear, SurmSlot, attach
from smoa_lightning.adapters.surm.structured import structured_matrix
from smoa_lightning.common.errors import UserError

from .surm_layers import randomise, surm_layers

Maker = Callable[..., Any]


@pytest.mark.parametrize(
    "settings",
    [
        {"structure": "circulant"},
        {"structure": "toeplitz", "block_size": 7},
        {"structure": "kronecker"},
        {"structure": "ldr", "displacement_rank": 3},
    ],
    ids=str,
)
def test_slot_formula(settings: dict[str, Any], llama: Maker, token_ids: Tensor) -> None:
    """``h + gelu(s D h) + bias`` with a dense D, checked on every slot of a model."""
    model = attach(llama(), SurmConfig(**settings, slot="adapter", alpha=2.0), seed=0)
    randomise(model)
    seen = []
    for module in surm_layers(model):
        module.register_forward_hook(lambda slot, inputs, output: seen.append((slot, inputs[0], output)))
    model(token_ids)
    assert [slot.name.rpartition(".")[2] for slot, _, _ in seen] == ["o_proj", "down_proj"] * 2
    for slot, x, output in seen:
        h = slot.base_layer(x)
        dense = structured_matrix(settings["structure"], slot.surm_left["default"], slot.surm_right["default"], 20, 20)
        expected = h + F.gelu(2.0 * h @ dense.T) + slot.surm_bias["default"]
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
        assert (output - h).abs().max() > 1e-2


def test_slot_after_whole_modules(llama: Maker, token_ids: Tensor) -> None:
    """A module that returns a tuple (attention) or hidden states (feed-forward) is the same as its last projection."""
    outputs = []
    for targets in (["self_attn.o_proj", "mlp.down_proj"], ["self_attn", "mlp"]):
        model = attach(llama(), SurmConfig(slot="adapter", target_modules=targets), seed=0)
        randomise(model)
        outputs.append(model(token_ids).logits)
    torch.testing.assert_close(*outputs)
    assert (outputs[0] - llama()(token_ids).logits).abs().max() > 1e-2


def test_slot_cannot_be_merged_but_saved_and_unloaded(llama: Maker, token_ids: Tensor, tmp_path: Path) -> None:
    model = attach(llama(), SurmConfig(slot="adapter", structure="ldr", displacement_rank=2), seed=0)
    randomise(model)
    expected = model(token_ids).logits
    with pytest.raises(UserError, match="nonlinear map in the adapter slot"):
        model.merge_adapter()
    torch.testing.assert_close(model(token_ids).logits, expected, rtol=0, atol=0)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(llama(), tmp_path)
    torch.testing.assert_close(again(token_ids).logits, expected, rtol=0, atol=0)
    plain = again.unload()
    assert not surm_layers(plain)
    torch.testing.assert_close(plain(token_ids).logits, llama()(token_ids).logits, rtol=0, atol=0)


def test_both_slots_share_a_model_but_no_layer(llama: Maker) -> None:
    model = attach(llama(), SurmConfig(target_modules=["q_proj"]), 0)
    model.add_adapter("slots", SurmConfig(slot="adapter"))
    model.base_model.set_adapter(["default", "slots"])
    assert [type(module) for module in surm_layers(model)] == [SurmLinear, SurmSlot, SurmSlot] * 2
    with pytest.raises(UserError, match=r"cannot share layer .*q_proj .* need SurmLinear, this adapter needs SurmSlot"):
        model.add_adapter("third", SurmConfig(slot="adapter", target_modules=["q_proj"]))


def bert() -> BertForSequenceClassification:
    sizes = {"hidden_size": 20, "intermediate_size": 33, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=40)).eval()


def test_default_places_in_bert() -> None:
    """``output.dense`` alone would match ``attention.output.dense`` too."""
    names: dict[str, list[str]] = {}
    for placement in ("houlsby", "pfeiffer"):
        model = attach(bert(), SurmConfig(slot="adapter", placement=placement), 0)
        names[placement] = [slot.name for slot in surm_layers(model)]
    feedforward = [f"bert.encoder.layer.{index}.output.dense" for index in range(2)]
    assert names["pfeiffer"] == feedforward
    assert sorted(names["houlsby"]) == sorted(
        [*feedforward, *(f"bert.encoder.layer.{index}.attention.output.dense" for index in range(2))]
    )
    with pytest.raises(UserError, match=r"layers_to_transform has no effect under placement 'pfeiffer'"):
        attach(bert(), SurmConfig(slot="adapter", placement="pfeiffer", layers_to_transform=[0]), 0)


class Blocks(nn.Module):
    """A model of another library: no config, and a module whose width nothing tells."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_slots_in_unknown_models(llama: Maker, token_ids: Tensor) -> None:
    with pytest.raises(UserError, match=r"SurmConfig has no default targets for Blocks: set target_modules"):
        attach(Blocks(), SurmConfig(slot="adapter"), 0)
    model = Blocks()
    with pytest.raises(UserError, match="the adapter slot after second has no known width: Sequential"):
        attach(model, SurmConfig(slot="adapter", target_modules=["first", "second"]), 0)
    assert not surm_layers(model)
    adapted = attach(model, SurmConfig(slot="adapter", target_modules=["first"]), 0)
    x = torch.randn(2, 6)
    assert torch.equal(adapted(x), Blocks.forward(model, x))
    wrong = attach(llama(), SurmConfig(slot="adapter", target_modules=["mlp.act_fn"]), 0)
    with pytest.raises(UserError, match=r"needs hidden states of size 20, .* returned \(2, 12, 33\)"):
        wrong(token_ids)
