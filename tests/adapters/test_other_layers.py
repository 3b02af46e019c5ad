"""SURM's and MoRA's updates of embeddings and convolutions, and what stays refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlamaForCausalLM

from smoa_lightning.adapters import HyperAdaptConfig, MoraConfig, MoraLinear, SMoAConfig, SurmConfig, SurmLinear, attach
from smoa_lightning.common.errors import UserError

Maker = Callable[..., LlamaForCausalLM]
METHODS: dict[str, Callable[..., Any]] = {
    "sharing": lambda **more: MoraConfig(r=2, alpha=3.0, **more),
    "rotation": lambda **more: MoraConfig(r=2, type="rotation", **more),
    "circulant": lambda **more: SurmConfig(alpha=3.0, **more),
    "toeplitz": lambda **more: SurmConfig(structure="toeplitz", block_size=4, **more),
    "hadamard": lambda **more: SurmConfig(structure="toeplitz_hadamard", **more),
    "kronecker": lambda **more: SurmConfig(structure="kronecker", **more),
    "ldr": lambda **more: SurmConfig(structure="ldr", block_size=4, **more),
}


class Scaled(nn.Embedding):
    """A scaled embedding as in Gemma."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("embed_scale", torch.tensor(4.5), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.embed_scale


class ScaledByFloat(nn.Embedding):
    """A scaled embedding as in XGLM, BioGPT and Bart: the scale is a number."""

    embed_scale = 4.5

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.embed_scale


class Replaced(Scaled):
    """A scaled embedding with a vector of its own for one token, as in T5Gemma 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eoi_embedding = nn.Parameter(torch.zeros(self.embedding_dim))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "embedding": lambda: nn.Embedding(30, 8),
    "padding": lambda: nn.Embedding(30, 8, padding_idx=3),
    "scaled": lambda: Scaled(30, 8),
    "scaled by float": lambda: ScaledByFloat(30, 8),
    "conv": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "grouped": lambda: nn.Conv2d(4, 6, (3, 2), stride=2, groups=2, bias=False),
    "circular": lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2, padding_mode="circular"),
}
CONVOLUTIONS = ("conv", "grouped", "circular")
CELLS = [(layer, method) for layer in LAYERS for method in METHODS if method != "rotation" or layer in CONVOLUTIONS]


def inputs(layer: nn.Module) -> Tensor:
    if isinstance(layer, nn.Embedding):
        return torch.arange(12).view(2, 6) * 2
    return torch.randn(2, 4, 7, 7, generator=torch.Generator().manual_seed(0))


def adapted(base: nn.Module, config: Any) -> PeftModel:
    torch.manual_seed(0)
    config.target_modules = ["0"]
    model = get_peft_model(nn.Sequential(base), config)
    layer = model.base_model.model[0]
    for name in layer.adapter_layer_names:
        nn.init.normal_(getattr(layer, name)["default"])
    return model


@pytest.mark.parametrize(("kind", "method"), CELLS)
def test_the_layer_with_an_updated_weight(kind: str, method: str) -> None:
    """Output, gradient and merge are those of the layer whose weight has the update in its own storage."""
    torch.manual_seed(1)
    base = LAYERS[kind]()
    model = adapted(copy.deepcopy(base), METHODS[method]())
    layer, x = model.base_model.model[0], inputs(base)
    delta = layer.get_delta_weight("default")
    assert delta.shape == base.weight.shape
    reference = copy.deepcopy(base)
    reference.weight.data += delta.detach()
    expected = reference(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    factors = [getattr(layer, name)["default"] for name in layer.adapter_layer_names]
    (wanted,) = torch.autograd.grad(expected.square().sum(), reference.weight)
    found = torch.autograd.grad(model(x).square().sum(), factors)
    torch.testing.assert_close(found, torch.autograd.grad(delta, factors, wanted), rtol=1e-3, atol=1e-3)
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(layer.get_base_layer().weight, reference.weight)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    assert torch.equal(layer.get_base_layer().weight, base.weight)
    with model.disable_adapter():
        assert torch.equal(model(x), base(x))
    assert not layer.supports_lora_conversion()


@pytest.mark.parametrize("method", ["sharing", "circulant", "kronecker"])
def test_embedding_of_a_model(method: str, llama: Maker, token_ids: Tensor, tmp_path: Path) -> None:
    model = attach(llama(), METHODS[method](target_modules=["embed_tokens", "q_proj"]), 0).eval()
    torch.testing.assert_close(model(token_ids).logits, llama()(token_ids).logits)
    layers = [m for m in model.modules() if isinstance(m, MoraLinear | SurmLinear)]
    assert (layers[0].out_features, layers[0].in_features) == (20, 40)
    for layer in layers:
        for name in layer.adapter_layer_names:
            nn.init.normal_(getattr(layer, name)["default"])
    changed = model(token_ids).logits
    assert (changed - llama()(token_ids).logits).abs().max() > 0.1
    with pytest.warns(UserWarning, match="save_embedding_layers"):  # as for peft's LoRA
        model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(llama(), tmp_path)
    torch.testing.assert_close(again(token_ids).logits, changed)
    mixed = model(token_ids, adapter_names=["default", "__base__"]).logits
    torch.testing.assert_close(mixed, torch.cat([changed[:1], llama()(token_ids).logits[1:]]), rtol=1e-4, atol=1e-4)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(token_ids).logits, changed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["xglm", "biogpt"])
def test_embedding_with_a_number_as_scale_in_a_model(kind: str, token_ids: Tensor) -> None:
    sizes = {"d_model": 16, "ffn_dim": 32, "num_layers": 1, "attention_heads": 2} if kind == "xglm" else {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2
    }  # fmt: skip
    config = CONFIG_MAPPING[kind](vocab_size=40, max_position_embeddings=32, tie_word_embeddings=False, **sizes)
    model = attach(AutoModelForCausalLM.from_config(config), SurmConfig(target_modules=["embed_tokens"]), 0).eval()
    (layer,) = (m for m in model.modules() if isinstance(m, SurmLinear))
    for name in layer.adapter_layer_names:
        nn.init.normal_(getattr(layer, name)["default"])
    changed = model(token_ids).logits
    torch.testing.assert_close(model.merge_and_unload()(token_ids).logits, changed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["embedding", "scaled by float", "conv"])
def test_half_precision(kind: str) -> None:
    base = LAYERS[kind]().bfloat16()
    x = inputs(base)
    x = x.bfloat16() if x.is_floating_point() else x
    model = adapted(base, SurmConfig())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model(x).dtype == torch.bfloat16


class Positions(nn.Embedding):
    """An embedding whose forward takes something else than token ids, as in OPT."""

    def forward(self, mask: Tensor) -> Tensor:
        return super().forward(mask.cumsum(-1))


@pytest.mark.parametrize(
    ("base", "config", "message"),
    [
        (nn.Embedding(30, 8), SMoAConfig(), "it is Embedding, but must be nn.Linear or Conv1D with"),
        (nn.Conv2d(4, 6, 3), HyperAdaptConfig(), "it is Conv2d, but must be nn.Linear or Conv1D with"),
        (nn.Conv1d(4, 6, 3), SurmConfig(), r"it is Conv1d, but must be nn.Linear, Conv1D, nn.Conv2d or nn.Embedding"),
        (nn.ConvTranspose2d(4, 6, 3), MoraConfig(), "it is ConvTranspose2d, but must be"),
        (Positions(30, 8), SurmConfig(), "it is Positions, but must be"),
        (Replaced(30, 8), SurmConfig(), "it is Replaced, but must be"),
        (nn.Embedding(30, 8, max_norm=1.0), SurmConfig(), r"it is Embedding, but must be .*\(without max_norm\)"),
        (nn.Embedding(30, 8), MoraConfig(type="rotation"), "updates about 8 of the 30 tokens of the embedding 0 only"),
        (nn.Embedding(30, 8), SurmConfig(structure="ldr"), "without block_size multiplies matrices of 30 x 30 .* as 8"),
        (nn.Embedding(30, 8), SurmConfig(structure="toeplitz"), "without block_size multiplies matrices of 30 x 30"),
    ],
    ids=str,
)
def test_refused_layers(base: nn.Module, config: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        adapted(base, config)
