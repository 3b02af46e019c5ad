"""Adapter files: what they hold, where they load, and where they must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smoa_lightning.adapters import SMoAConfig, adapter_bytes, attach
from smoa_lightning.adapters.smoa import SmoaLinear, subspaces
from smoa_lightning.adapters.tuner import bound
from smoa_lightning.adapters.tuner.fingerprint import fingerprint, fingerprint_text, fingerprints_match
from smoa_lightning.common.errors import UserError

Maker = Callable[..., Any]
CASES = [
    ("spectral_blocks", "weight"),
    ("spectral_energy", "weight"),
    ("random_blocks", "random"),
    ("none", "weight"),
    ("grid_blocks", "weight"),
]
FILE = "adapter_model.safetensors"
CHILD = """
import sys, warnings
warnings.filterwarnings("error"); warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
import torch
import smoa_lightning.adapters
from peft import AutoPeftModelForCausalLM
for threads, dtype in ((1, "float32"), (2, "float32"), (1, "bfloat16")):
    torch.set_num_threads(threads)
    for folder in sys.argv[1:]:
        model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        with torch.no_grad():
            torch.save(model(torch.arange(24).view(2, 12) % 40).logits, f"{folder}/{threads}_{dtype}.pt")
"""


def config(partition: Any = "spectral_blocks", modulation: Any = "weight", **more: Any) -> SMoAConfig:
    count = 1 if partition == "none" else 2
    return SMoAConfig(**{"r": 4, "num_subspaces": count, "partition": partition, "modulation": modulation, **more})


def rounded(model: nn.Module) -> Any:
    """Give a model weights that bfloat16 can hold, as most published checkpoints have."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


@pytest.fixture
def saved(llama: Maker, randomise: Maker, tmp_path: Path) -> Callable[..., tuple[PeftModel, Path]]:
    """Save a backbone (with weights that bfloat16 can hold) and a random adapter for it; return model and folder."""

    def make(settings: SMoAConfig, name: str = "adapter") -> tuple[PeftModel, Path]:
        backbone = rounded(llama(hidden_size=24))
        backbone.save_pretrained(tmp_path / "backbone")
        backbone.name_or_path = str(tmp_path / "backbone")
        model = randomise(attach(backbone, settings, seed=0))
        model.save_pretrained(tmp_path / name)
        return model.eval(), tmp_path / name

    return make


@pytest.mark.parametrize(("partition", "modulation"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_through_the_meta_device_gives_identical_logits(
    partition: str, modulation: str, dtype: torch.dtype,
    llama: Maker, randomise: Maker, token_ids: Tensor, tmp_path: Path,
) -> None:  # fmt: skip
    model = randomise(attach(llama(dtype=dtype), config(partition, modulation), seed=0))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(dtype=dtype), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(loaded(token_ids).logits, model(token_ids).logits)
    own, other = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in own.items())
    assert not any(p.requires_grad for p in loaded.parameters())
    trainable = PeftModel.from_pretrained(llama(dtype=dtype), tmp_path, is_trainable=True)
    assert sum(p.numel() for p in trainable.parameters() if p.requires_grad) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )


def test_fresh_process_with_other_threads_and_dtype(saved: Maker, token_ids: Tensor) -> None:
    torch.set_num_threads(1)
    models = dict(saved(config(partition), partition)[::-1] for partition in ("spectral_blocks", "spectral_energy"))
    command = [sys.executable, "-c", CHILD, *map(str, models)]
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, timeout=200)
    for folder, model in models.items():
        with torch.no_grad():
            expected = model(token_ids).logits
            with model.disable_adapter():
                effect = (model(token_ids).logits - expected).abs().max()
        one, two, half = (torch.load(folder / f"{n}.pt") for n in ("1_float32", "2_float32", "1_bfloat16"))
        torch.testing.assert_close(one, expected, rtol=0, atol=0)
        torch.testing.assert_close(two, expected, rtol=1e-5, atol=1e-6)
        # Rounding of the activations only: wrong orders would be as far off as the adapter is from the backbone.
        assert (half.float() - expected).abs().max() < 0.1 * effect


def test_auto_class(saved: Maker, token_ids: Tensor) -> None:
    model, folder = saved(config())
    assert torch.equal(AutoPeftModelForCausalLM.from_pretrained(folder)(token_ids).logits, model(token_ids).logits)


def test_file_holds_orders_and_fingerprints_and_nothing_dense(saved: Maker) -> None:
    model, folder = saved(config())
    tensors = load_file(folder / FILE)
    kinds = {name.rpartition(".")[2] for name in tensors}
    assert kinds == {"smoa_A", "smoa_B", "smoa_row_order", "smoa_col_order", "smoa_fingerprint"}
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.float32 if name.endswith(("smoa_A", "smoa_B")) else torch.int32)
    assert adapter_bytes(model) == (folder / FILE).stat().st_size
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["peft_type"] == "SMOA"
    assert settings["task_type"] == "CAUSAL_LM"
    assert settings["base_model_name_or_path"].endswith("backbone")
    cuts = {name for name in load_file(saved(config("spectral_energy"))[1] / FILE) if "cut_points" in name}
    assert len(cuts) == 10


def test_saving_before_any_forward_fills_the_state(llama: Maker, tmp_path: Path) -> None:
    """peft's own get_peft_model computes nothing at first; what is saved must be complete all the same."""
    from peft import get_peft_model

    get_peft_model(llama(), config()).save_pretrained(tmp_path)
    for name, tensor in load_file(tmp_path / FILE).items():
        if "order" in name:
            assert tensor.sort().values.tolist() == list(range(tensor.numel()))
        if "fingerprint" in name:
            assert tensor.any()


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize(("partition", "modulation"), CASES)
def test_no_spectrum_is_computed_when_state_is_loaded(
    partition: str, modulation: str, low_cpu_mem_usage: bool,
    saved: Maker, llama: Maker, token_ids: Tensor, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model, folder = saved(config(partition, modulation))

    def refuse(*_: Any) -> None:
        raise AssertionError("a spectrum was computed")

    monkeypatch.setattr(subspaces, "spectrum", refuse)
    for name in ("eigh", "eigvalsh", "svd", "svdvals"):
        monkeypatch.setattr(torch.linalg, name, refuse)
    backbone = AutoPeftModelForCausalLM.from_pretrained(folder, low_cpu_mem_usage=low_cpu_mem_usage)
    if partition != "spectral_energy":  # its dense spectral parts are made at the first forward
        assert torch.equal(backbone(token_ids).logits, model(token_ids).logits)


def test_orders_from_the_file_win(saved: Maker, token_ids: Tensor) -> None:
    model, folder = saved(config())
    tensors = load_file(folder / FILE)
    changed = {name: t.flip(0).contiguous() if "row_order" in name else t for name, t in tensors.items()}
    save_file(changed, folder / FILE)
    loaded = AutoPeftModelForCausalLM.from_pretrained(folder)
    for layer in (m for m in loaded.modules() if isinstance(m, SmoaLinear)):
        order = layer.smoa_row_order["default"]
        assert torch.equal(order, changed[f"base_model.model.{layer.name}.smoa_row_order"])
        (first, *_), rows = layer.plan("default").rows, order[: -(-layer.out_features // 2)]
        assert first.tolist() == rows.tolist()
    assert not torch.allclose(loaded(token_ids).logits, model(token_ids).logits)


def test_cut_points_from_the_file_win(saved: Maker, token_ids: Tensor) -> None:
    model, folder = saved(config("spectral_energy"))
    tensors = load_file(folder / FILE)
    save_file({n: torch.full_like(t, 2) if "cut_points" in n else t for n, t in tensors.items()}, folder / FILE)
    loaded = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert not torch.allclose(loaded(token_ids).logits, model(token_ids).logits)
    for layer in (m for m in loaded.modules() if isinstance(m, SmoaLinear)):
        assert layer.smoa_cut_points["default"].tolist() == [2]
        assert torch.linalg.matrix_rank(layer.plan("default").masks[0]) == 2


def test_damaged_orders_are_refused(saved: Maker, token_ids: Tensor) -> None:
    _, folder = saved(config())
    tensors = load_file(folder / FILE)
    save_file({n: torch.zeros_like(t) if "row_order" in n else t for n, t in tensors.items()}, folder / FILE)
    loaded = AutoPeftModelForCausalLM.from_pretrained(folder)
    with pytest.raises(UserError, match=r"smoa_row_order of layer .* is damaged"):
        loaded(token_ids)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("partition", ["spectral_blocks", "spectral_energy", "none", "contiguous_blocks"])
def test_wrong_base_is_refused_with_both_fingerprints(
    partition: str, low_cpu_mem_usage: bool, saved: Maker, llama: Maker
) -> None:
    model, folder = saved(config(partition))
    other = llama(seed=1, hidden_size=24)
    layer = next(m for m in model.modules() if isinstance(m, SmoaLinear))
    expected = fingerprint_text(layer.smoa_fingerprint["default"])
    found = fingerprint_text(fingerprint(other.model.layers[0].self_attn.q_proj.weight))
    assert expected != found
    with pytest.raises(UserError) as caught:
        PeftModel.from_pretrained(other, folder, low_cpu_mem_usage=low_cpu_mem_usage)
    message = str(caught.value)
    assert expected in message
    assert found in message
    assert "model.layers.0.self_attn.q_proj" in message


def test_loading_takes_one_fingerprint_of_each_weight(
    saved: Maker, llama: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = saved(config())
    base, taken = rounded(llama(hidden_size=24)), []
    monkeypatch.setattr(bound, "fingerprint", lambda *given: taken.append(given[0]) or fingerprint(*given))
    loaded = PeftModel.from_pretrained(base, folder)
    weights = [layer.base_layer.weight for layer in loaded.modules() if isinstance(layer, SmoaLinear)]
    assert sorted(map(id, taken)) == sorted(map(id, weights))
    _, narrow = saved(config(target_modules=["q_proj"]), "narrow")
    taken.clear()
    loaded.load_adapter(narrow, "narrow")
    queries = [m.base_layer.weight for n, m in loaded.named_modules() if n.endswith("q_proj")]
    assert sorted(map(id, taken)) == sorted(map(id, queries))


def test_one_changed_entry_of_the_base_is_noticed(saved: Maker, llama: Maker) -> None:
    _, folder = saved(config())
    other = rounded(llama(hidden_size=24))
    PeftModel.from_pretrained(other, folder)
    changed = rounded(llama(hidden_size=24))
    changed.model.layers[1].mlp.down_proj.weight.data[3, 5] *= 1.05
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.down_proj"):
        PeftModel.from_pretrained(changed, folder)


def test_a_merged_model_loads_a_further_adapter(saved: Maker) -> None:
    """peft unmerges for that, which must bring the backbone back."""
    _, folder = saved(config())
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    plain = [layer.base_layer.weight.clone() for layer in model.modules() if isinstance(layer, SmoaLinear)]
    model.merge_adapter()
    with pytest.warns(UserWarning, match="Unmerging the model first"):
        model.load_adapter(folder, "again")
    again = [layer.base_layer.weight for layer in model.modules() if isinstance(layer, SmoaLinear)]
    assert all(torch.equal(first, second) for first, second in zip(plain, again, strict=True))


def test_loading_into_a_merged_layer_compares_the_unmerged_weight(saved: Maker) -> None:
    model, _ = saved(config())
    state = model.state_dict()
    model.merge_adapter()
    model.load_state_dict({name: tensor for name, tensor in state.items() if "smoa_" in name}, strict=False)


def test_a_file_of_another_rank_is_refused(saved: Maker, llama: Maker) -> None:
    _, folder = saved(config(r=4))
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "r": 6}))
    with pytest.raises(UserError, match=r"does not fit: .*smoa_[AB].* has shape"):
        PeftModel.from_pretrained(llama(hidden_size=24), folder)


def test_saved_tensors_are_selected_by_layer_and_not_by_name() -> None:
    """A module of the backbone may be called as the tensors of the method are."""
    backbone = nn.ModuleDict({"smoa_gate": nn.Linear(8, 8), "proj": nn.Linear(8, 8)})
    model = attach(backbone, config(target_modules=["proj"]), seed=0)
    (layer,) = (module for module in model.modules() if isinstance(module, SmoaLinear))
    own = {f"base_model.model.proj.{name.removesuffix('.default')}" for name in layer.saved_tensors("default")}
    assert own == get_peft_model_state_dict(model).keys()
    assert layer.saved_tensors("other") == {}


def test_a_plain_state_dict_is_checked_too(saved: Maker, llama: Maker) -> None:
    """A checkpoint goes through load_state_dict, not through peft."""
    model, _ = saved(config())
    state = {name: tensor for name, tensor in model.state_dict().items() if "smoa_" in name}
    same = attach(rounded(llama(hidden_size=24)), config(), seed=1)
    same.load_state_dict(state, strict=False)
    other = attach(llama(seed=1, hidden_size=24), config(), seed=1)
    with pytest.raises(UserError, match="does not belong to this backbone"):
        other.load_state_dict(state, strict=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_fingerprint_recognises_a_weight_in_other_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 30) * 0.02
    saved = fingerprint(weight)
    assert fingerprints_match(saved, fingerprint(weight.to(dtype)), dtype)
    assert not fingerprints_match(saved, fingerprint(torch.randn(40, 30).to(dtype) * 0.02), dtype)
    assert not fingerprints_match(saved, fingerprint(weight.to(dtype).T), dtype)


def test_fingerprint_is_fixed() -> None:
    """Files of an earlier version must stay readable: the words of a known matrix."""
    words = fingerprint(torch.arange(12, dtype=torch.float32).view(3, 4) - 5)
    assert words.dtype == torch.int32
    assert words.shape == (20,)
    assert fingerprint_text(words) == "f76bc1eb81d7e703689dc4e927a86f46"
    assert torch.equal(words, fingerprint(-(5 - torch.arange(12, dtype=torch.float32).view(3, 4))))  # -0.0 is 0.0
