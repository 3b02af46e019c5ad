"""Bottleneck adapters against plain nn.Linear layers, their places and their parameter counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from smoa_lightning.adapters import BottleneckConfig, BottleneckSlot, attach
from smoa_lightning.common.errors import UserError

Maker = Callable[..., Any]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def slots(model: nn.Module) -> list[BottleneckSlot]:
    return [module for module in model.modules() if isinstance(module, BottleneckSlot)]


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for slot in slots(model):
        for name in slot.adapter_layer_names:
            for parameter in getattr(slot, name).values():
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def reference(slot: BottleneckSlot, activation: nn.Module) -> nn.Module:
    """The same adapter made of torch's own layers."""
    size, width = slot.bottleneck_down["default"].shape
    plain = nn.Sequential(nn.Linear(width, size), activation, nn.Linear(size, width))
    values = [getattr(slot, name)["default"].detach() for name in slot.adapter_layer_names]
    with torch.no_grad():
        for parameter, value in zip(plain.parameters(), values, strict=True):
            parameter.copy_(value)
    return plain


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_parameter_counts_of_smollm2(placement: Any) -> None:
    """2 n k + k + n for every slot, two or one in each of the 30 layers of SmolLM2-135M."""
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 64}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    with torch.device("meta"):
        backbone = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
        model = attach(backbone, BottleneckConfig(bottleneck_size=7, placement=placement), seed=0)
    count = 30 * (2 if placement == "houlsby" else 1)
    assert model.get_nb_trainable_parameters()[0] == count * (2 * 576 * 7 + 7 + 576)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_starts_as_the_backbone_and_learns(
    kind: str, placement: Any, token_ids: Tensor, request: pytest.FixtureRequest
) -> None:
    make = request.getfixturevalue(kind)
    model = attach(make(), BottleneckConfig(bottleneck_size=5, placement=placement), seed=0)
    output = model(token_ids, labels=token_ids)
    assert torch.equal(output.logits, make()(token_ids).logits)
    output.loss.backward()
    names = [slot.name for slot in slots(model)]
    ends = {"llama": ("self_attn.o_proj", "mlp.down_proj"), "gpt2": ("attn.c_proj", "mlp.c_proj")}[kind]
    assert len(names) == (4 if placement == "houlsby" else 2)
    assert all(name.endswith(ends if placement == "houlsby" else ends[1]) for name in names)
    for slot in slots(model):
        bound = 20**-0.5
        assert 0.9 * bound < slot.bottleneck_down["default"].abs().max() <= bound
        assert slot.bottleneck_up["default"].grad.any()
        assert slot.bottleneck_up_bias["default"].grad.any()
        assert not any(getattr(slot, name)["default"].any() for name in slot.adapter_layer_names[1:])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("bottleneck_" in name for name in trained)


@pytest.mark.parametrize(
    ("name", "activation"), [("gelu", nn.GELU()), ("relu", nn.ReLU()), ("silu", nn.SiLU()), ("sigmoid", nn.Sigmoid())]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(name: str, activation: nn.Module, dtype: torch.dtype, llama: Maker, token_ids: Tensor) -> None:
    model = attach(llama(dtype=dtype), BottleneckConfig(bottleneck_size=5, activation=name), seed=0)
    randomise(model)
    seen: list[tuple[BottleneckSlot, Tensor, Tensor]] = []
    for slot in slots(model):
        slot.register_forward_hook(lambda slot, inputs, output: seen.append((slot, inputs[0], output)))
    model(token_ids)
    assert len(seen) == 4
    for slot, x, output in seen:
        assert output.dtype == dtype
        assert all(getattr(slot, name)["default"].dtype == torch.float32 for name in slot.adapter_layer_names)
        h = slot.base_layer(x)
        expected = h + reference(slot, activation)(h.float())
        close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
        torch.testing.assert_close(output.float(), expected.float(), **close)


def test_several_adapters_add_up_and_switch(llama: Maker, token_ids: Tensor, tmp_path: Path) -> None:
    model = attach(llama(), BottleneckConfig(bottleneck_size=5), seed=0)
    model.add_adapter("second", BottleneckConfig(bottleneck_size=3, activation="relu"))
    randomise(model)
    slot, x = slots(model)[0], torch.randn(3, 20)
    h, parts = slot.base_layer(x), {}
    for name in ("default", "second"):
        model.set_adapter(name)
        parts[name] = slot(x) - h
    model.base_model.set_adapter(["default", "second"])
    torch.testing.assert_close(slot(x), h + parts["default"] + parts["second"])
    with model.disable_adapter():
        assert torch.equal(model(token_ids).logits, llama()(token_ids).logits)
    model.set_adapter("second")
    expected = model(token_ids).logits
    model.save_pretrained(tmp_path, selected_adapters=["second"])
    again = PeftModel.from_pretrained(llama(), tmp_path / "second")
    torch.testing.assert_close(again(token_ids).logits, expected, rtol=0, atol=0)
    model.delete_adapter("default")
    assert all(set(slot.activations) == set(slot.configs) == {"second"} for slot in slots(model))


def test_cannot_be_merged(llama: Maker) -> None:
    model = attach(llama(), BottleneckConfig(bottleneck_size=4), 0)
    with pytest.raises(UserError, match="cannot be merged into a weight"):
        model.merge_and_unload()
    assert len(slots(model)) == 4


def test_dropout_only_in_training(llama: Maker) -> None:
    model = attach(llama(), BottleneckConfig(bottleneck_size=5, dropout=0.5), seed=0)
    randomise(model)
    slot, x = slots(model)[0], torch.randn(4, 20)
    model.eval()
    assert torch.equal(slot(x), slot(x))
    model.train()
    assert not torch.equal(slot(x), slot(x))


def test_bert_places() -> None:
    sizes = {"hidden_size": 20, "intermediate_size": 33, "num_hidden_layers": 2, "num_attention_heads": 2}
    bert = BertForSequenceClassification(BertConfig(**sizes, vocab_size=40))
    model = attach(bert, BottleneckConfig(bottleneck_size=3, placement="pfeiffer", modules_to_save=["classifier"]), 0)
    assert [slot.name for slot in slots(model)] == [f"bert.encoder.layer.{index}.output.dense" for index in range(2)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bottleneck_size": 0}, "bottleneck_size is 0, but must be an integer of at least 1"),
        ({"placement": "parallel"}, "placement is 'parallel', but must be one of houlsby, pfeiffer"),
        ({"activation": "swissh"}, r"activation is 'swissh', .* nearest: swish"),
        ({"activation": "xielu"}, "must be a function of transformers without parameters"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"bias": "some"}, "bias is 'some', but must be one of none, all, bottleneck_only"),
    ],
    ids=str,
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BottleneckConfig(**settings)


def test_settings_that_do_not_fit(llama: Maker) -> None:
    model = llama()
    with pytest.raises(UserError, match=r"bottleneck_size is 21, but must be between 1 and 20, .* after .*o_proj"):
        attach(model, BottleneckConfig(bottleneck_size=21), 0)
    assert not slots(model)
    with pytest.raises(UserError, match=r"BottleneckConfig has no default targets for Sequential"):
        attach(nn.Sequential(nn.Linear(3, 3)), BottleneckConfig(), 0)
