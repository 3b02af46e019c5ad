"""``adapter_names``: every row of a batch has its own adapter, for every method of ours."""

from __future__ import annotations

import copy
import pickle

import peft
import pytest
import torch
from peft import PeftModel
from torch import Tensor

from smoa_lightning.adapters import attach
from smoa_lightning.common.errors import UserError

from .architectures import ARCHITECTURES, inputs, logits
from .test_matrix import METHODS, layers, randomise

NAMES = ["other", "__base__", "default", "other"]


def pair(family: str, method: str, **more: object) -> PeftModel:
    model = attach(ARCHITECTURES[family](), METHODS[method](**more), seed=0)
    model.add_adapter("other", METHODS[method](**more))
    for seed, name in enumerate(("default", "other")):
        randomise(model, name, seed)
    return model.eval()


def rows(model: PeftModel, names: list[str]) -> dict[str, Tensor]:
    batch = {name: value[:1].repeat(len(names), *[1] * (value.dim() - 1)) for name, value in inputs(model).items()}
    return batch


def separately(model: PeftModel, names: list[str]) -> Tensor:
    batch, results = rows(model, names), []
    for index, name in enumerate(names):
        row = {key: value[index : index + 1] for key, value in batch.items()}
        if name == "__base__":
            with model.disable_adapter():
                results.append(logits(model, **row))
        else:
            model.set_adapter(name)
            results.append(logits(model, **row))
    model.set_adapter("default")
    return torch.cat(results)


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_rows_use_their_adapters(method: str) -> None:
    model = pair("llama", method)
    expected = separately(model, NAMES)
    found = model(**rows(model, NAMES), adapter_names=NAMES).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found[0] - found[2]).abs().max() > 1e-3 < (found[1] - found[2]).abs().max()
    torch.testing.assert_close(logits(model, **rows(model, NAMES))[2], found[2], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("family", "method"), [("gpt2", "smoa_blocks"), ("bert", "bottleneck_houlsby")])
def test_conv1d_encoders_and_saved_modules(family: str, method: str) -> None:
    more = {"modules_to_save": ["classifier"]} if family == "bert" else {}
    model = pair(family, method, **more)
    torch.testing.assert_close(
        model(**rows(model, NAMES), adapter_names=NAMES).logits, separately(model, NAMES), rtol=1e-4, atol=1e-4
    )


def test_adapter_on_some_layers_only() -> None:
    model = attach(ARCHITECTURES["llama"](), METHODS["mora_sharing"](target_modules=["q_proj"]), seed=0)
    model.add_adapter("other", METHODS["mora_sharing"](target_modules=["v_proj"]))
    randomise(model, "default")
    randomise(model, "other")
    with torch.no_grad():
        found = model.eval()(**rows(model, NAMES), adapter_names=NAMES).logits
        torch.testing.assert_close(found, separately(model, NAMES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 2])
def test_generation(beams: int) -> None:
    model = pair("llama", "smoa_blocks")
    options = {"max_new_tokens": 3, "num_beams": beams, "do_sample": False, "pad_token_id": 0}
    ids = rows(model, NAMES)["input_ids"]
    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=NAMES, **options)
    for name in ("default", "other"):
        model.set_adapter(name)
        alone = model.generate(input_ids=ids[:1], attention_mask=torch.ones_like(ids[:1]), **options)
        assert torch.equal(found[NAMES.index(name)][: alone.shape[1]], alone[0])


def test_refusals() -> None:
    model = pair("llama", "surm_circulant")
    batch = rows(model, NAMES)
    for names, message in (
        (["default", "othr", "other", "other"], "row 1 the adapter 'othr', which does not exist; nearest: other"),
        (["default"], "adapter_names has 1 names, but layer .* gets 4 rows"),
    ):
        with pytest.raises(UserError, match=message):
            model(**batch, adapter_names=names)
    assert all(layer.adapters_of_rows is None for layer in layers(model))
    with pytest.raises(UserError, match="training mode"):
        model.train()(**batch, adapter_names=NAMES)
    model.eval().merge_adapter()
    with pytest.raises(UserError, match="call unmerge_adapter"):
        model(**batch, adapter_names=NAMES)


def test_experts_are_no_rows() -> None:
    model = pair("mixtral", "smoa_blocks", target_modules=["q_proj", "v_proj"])
    with torch.no_grad():
        found = model(**rows(model, NAMES), adapter_names=NAMES).logits
        torch.testing.assert_close(found, separately(model, NAMES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(),
        peft.VeraConfig(r=2),
        peft.LoKrConfig(r=2),
        peft.AdaLoraConfig(init_r=4, target_r=2, total_step=100),
        peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    ],
    ids=lambda config: type(config).__name__,
)
@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")
def test_methods_that_ignore_names_refuse_them(config: peft.PeftConfig) -> None:
    model = attach(ARCHITECTURES["llama"](), config, seed=0).eval()
    batch = rows(model, NAMES)
    expected = logits(model, **batch)
    options = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0}
    generated = model.generate(**batch, **options)
    for refusing in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(UserError, match=f"{config.peft_type.value} of peft would ignore them"):
            refusing(**batch, adapter_names=NAMES)
        with pytest.raises((UserError, ValueError), match="adapter_names"):
            refusing.generate(**batch, adapter_names=NAMES, **options)
        assert torch.equal(logits(refusing, **batch), expected)
        assert torch.equal(refusing.generate(**batch, adapter_names=None, **options), generated)


@torch.no_grad()
def test_lora_keeps_its_names() -> None:
    model = attach(ARCHITECTURES["llama"](), peft.LoraConfig(r=2, init_lora_weights=False), seed=0).eval()
    names = ["__base__", "default"]
    found = model(**rows(model, names), adapter_names=names).logits
    torch.testing.assert_close(found, separately(model, names), rtol=1e-4, atol=1e-4)
