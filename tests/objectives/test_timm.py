"""Models of timm, whose queries, keys and values are one layer; skipped without timm and torchvision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.inspect import adapted_layers
from smoa_lightning.training.adapter_folder import load_adapter, save_adapter

from ..runs import only_run
from .image_models import SIZE
from .test_image_runs import flags, record_of
from .test_images import build
from .test_loss import FACTS, first_batch, own_parameters, trainer

SIZES = {"img_size": SIZE, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
SHAPE = {
    "input_size": [3, SIZE, SIZE],
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}


@pytest.fixture(scope="module")
def timm_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Architecture of timm -> folder of a random model with five classes."""
    try:
        import timm  # noqa: F401
        import torchvision  # noqa: F401
    except Exception as error:  # torchvision raises a RuntimeError beside another build of torch
        pytest.skip(f"timm cannot be imported: {error}")
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    def folder(architecture: str = "vit_tiny_patch16_224", **sizes: Any) -> Path:
        made = tmp_path_factory.mktemp("timm")
        config = TimmWrapperConfig(architecture=architecture, model_args=sizes, num_labels=5, pretrained_cfg=SHAPE)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            TimmWrapperForImageClassification(config).save_pretrained(made)
        return made

    return folder


@pytest.mark.parametrize("split", [False, True], ids=["one layer", "parts"])
def test_adapters_on_qkv(split: bool, timm_model: Callable[..., Path], image_folder: Path, tmp_path: Path) -> None:
    """As one layer, or queries and values alone; the head is new and inside of the model."""
    targets = ["qkv.q", "qkv.v"] if split else ["qkv"]
    module, data = build(timm_model(**SIZES), image_folder, SMoAConfig(r=2, num_subspaces=2, target_modules=targets))
    module.backbone_config.split_fused = split
    module.configure_model()
    network: Any = module.network
    names = {f"timm_model.blocks.{n}.attn.{name}" for n in range(2) for name in targets}
    assert {layer.name for layer in adapted_layers(network)} == names
    assert network.get_base_model().new_head == ("timm_model.head",)
    before = own_parameters(network)
    trainer(max_steps=2).fit(module, datamodule=data)
    after = own_parameters(network)
    assert not [name for name in before if torch.equal(before[name], after[name])]
    save_adapter(module, tmp_path / "adapter", FACTS)
    loaded, _ = load_adapter(tmp_path / "adapter")
    pixels = first_batch(data)["pixel_values"]
    with torch.no_grad():
        found = loaded(pixel_values=pixels).logits
        assert found.shape == (8, 3)
        torch.testing.assert_close(found, network.eval()(pixel_values=pixels).logits, atol=1e-6, rtol=0)


def test_default_targets_are_those_of_other_vision_transformers(
    timm_model: Callable[..., Path], image_folder: Path
) -> None:
    """A network of convolutions without ``qkv`` gets all its linear layers."""
    module, _ = build(timm_model(**SIZES), image_folder, peft.LoraConfig(r=2))
    module.configure_model()
    inner = {layer.name.split(".", 3)[3] for layer in adapted_layers(module.network)}
    assert inner == {"attn.qkv", "mlp.fc1", "mlp.fc2"}
    module, _ = build(timm_model("test_convnext"), image_folder, peft.LoraConfig(r=2))
    module.configure_model()
    assert {layer.name.rpartition("mlp.")[2] for layer in adapted_layers(module.network)} == {"fc1", "fc2"}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "blocks.0.attn.qkv, but the model reads the weight of this layer itself and never calls it"),
        (
            ["--model.backbone.split_fused", "true"],
            "of the kind 'timm_wrapper', which has no fused layer whose outputs",
        ),
        (["--model.adapter.exclude_modules", r".*\.qkv"], ""),
    ],
)
def test_a_layer_that_is_never_called_is_refused(
    more: list[str], sentence: str, timm_model: Callable[..., Path], image_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    """timm's BEiT has a bias of queries and values only, and multiplies with the weight itself."""
    folder = timm_model("beit_base_patch16_224", **SIZES)
    arguments = [*flags(folder, image_folder, tmp_path / "runs"), "--trainer.max_steps", "1", "--model.warmup", "0"]
    arguments += ["--model.adapter", "peft.LoraConfig", "--model.adapter.target_modules", "all-linear"]
    assert main(["fit", *arguments, *more]) == (2 if sentence else 0)
    assert sentence in capsys.readouterr().err


def test_a_run_is_exported_for_timm(timm_model: Callable[..., Path], image_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    folder = timm_model(**SIZES)
    arguments = [*flags(folder, image_folder, tmp_path / "runs"), "--data.selection_rows", "9"]
    arguments += ["--model.adapter.num_subspaces", "4", "--trainer.max_epochs", "2"]
    assert main(["fit", *arguments]) == 0
    run, record = only_run(tmp_path / "runs"), record_of(tmp_path / "runs")
    assert record["metrics"]["parameters/head"] == 3 * 24 + 3
    assert main(["export", str(run), "--output", str(tmp_path / "merged")]) == 0
    facts = json.loads((tmp_path / "merged" / "export.json").read_text())
    assert facts["fidelity"]["after"]["nll"] == pytest.approx(record["metrics"]["report/nll"], abs=1e-5)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "merged")
    assert list(model.config.id2label.values()) == ["blue", "green", "red"]
    moved = shutil.copytree(tmp_path / "merged", tmp_path / "teacher")
    teacher = json.dumps({"teacher": str(moved), "weight": 0.5})
    assert main(["fit", *arguments, "--model.distillation", teacher, "--run.name", "taught"]) == 0
