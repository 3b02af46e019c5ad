"""Weights that are missing, of another shape or not finite are refused by name, and never trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate, provenance
from smoa_lightning.backbones.weights import check_finite, same_random_values
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.process_cache import process_cache

UP = "model.layers.1.mlp.up_proj.weight"
Change = Callable[[dict[str, Tensor]], Any]


def load(folder: Path, **settings: Any) -> nn.Module:
    config = BackboneConfig("local", path=str(folder), **settings)
    return load_model(config, locate(config))


@pytest.fixture
def changed(tiny_backbone: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Return a function: a change of the tensors in the file -> the folder of the changed model."""

    def make(change: Change) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(tiny_backbone, folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def test_a_missing_weight_is_refused_by_name_unless_it_is_allowed(changed: Callable[[Change], Path]) -> None:
    folder = changed(lambda tensors: tensors.pop(UP))
    with pytest.raises(UserError, match=rf"lack weights of the model \({UP}\).*allow_missing"):
        load(folder)
    with pytest.raises(UserError, match="lack weights"):
        load(folder, allow_missing=["model.layers.0.*"])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = load(folder, allow_missing=[UP])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = load(folder, allow_missing=["model.layers.*.up_proj.weight"])
    assert torch.equal(first.get_parameter(UP), second.get_parameter(UP))  # whatever the seed of the run
    with process_cache():  # a cell that allows it does not allow it for the next cell
        load(folder, allow_missing=[UP])
        with pytest.raises(UserError, match="lack weights"):
            load(folder)


def test_the_generators_of_devices_keep_their_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    for device in (torch.cuda, torch.mps, torch.xpu):
        monkeypatch.setattr(device, "manual_seed_all" if device is not torch.mps else "manual_seed", seeds.append)
    with same_random_values(True):
        first = torch.rand(3)
    with same_random_values(True):
        assert torch.equal(torch.rand(3), first)
    assert seeds == []


def test_a_name_that_is_not_missing_is_refused(tiny_backbone: Path) -> None:
    with pytest.raises(UserError, match=r"allow_missing names 'lm_head\.weigth'.*no weight is missing"):
        load(tiny_backbone, allow_missing=["lm_head.weigth"])


def test_the_folder_of_a_classifier_has_no_output_embedding(tiny_backbone: Path, tmp_path: Path) -> None:
    classifier = AutoModelForSequenceClassification.from_pretrained(tiny_backbone)
    classifier.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lm_head\.weight"):
        load(tmp_path)


def test_a_weight_of_another_shape_is_refused_by_name(changed: Callable[[Change], Path]) -> None:
    folder = changed(lambda tensors: tensors.update({UP: torch.zeros(40, 32)}))
    with pytest.raises(UserError, match=rf"{UP} is \(40, 32\) in the files and \(48, 32\) in the model"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_weight_that_is_not_finite_is_refused_by_name(
    value: float, dtype: str, changed: Callable[[Change], Path]
) -> None:
    folder = changed(lambda tensors: tensors[UP][3].__setitem__(5, value))
    with pytest.raises(UserError, match=rf"damaged: {UP} has a value that is {value}"):
        load(folder, dtype=dtype)


def test_a_weight_that_overflows_in_the_dtype_is_refused() -> None:
    model = nn.Linear(4, 4)
    model.weight.data[0, 0] = 1e30
    check_finite(model, "x")
    with pytest.raises(UserError, match="weight has a value that is inf"):
        check_finite(model.half(), "x")


def test_a_mask_in_a_buffer_may_be_infinite() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    check_finite(model, "x")
    model.mask[0] = float("nan")
    with pytest.raises(UserError, match="mask has a value that is nan"):
        check_finite(model, "x")


def test_bin_weights_have_a_digest(tiny_backbone: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_backbone)
    shutil.copy(tiny_backbone / "config.json", tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    location = locate(BackboneConfig("local", path=str(tmp_path)))
    before = provenance(location)["sha256"]
    assert before.keys() == {"pytorch_model.bin"}
    model.get_parameter(UP).data.add_(1)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert provenance(location)["sha256"] != before
