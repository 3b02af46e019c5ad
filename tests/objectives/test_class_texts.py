"""A head of CLIP that starts from texts with the names of the classes, against transformers' zero-shot CLIP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPForImageClassification, CLIPModel

from smoa_lightning.__main__ import main
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.backbones.class_texts import ClipWithClassTexts
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.objectives import objective_of
from smoa_lightning.training.adapter_folder import load_adapter
from smoa_lightning.training.module import FineTuneModule

from ..runs import only_run
from .test_image_runs import flags, record_of
from .test_loss import first_batch

NAMES = ("blue", "green", "red")
PHOTO, DRAWING = "a photo of a {}", "the drawing of {} color"
Build = tuple[FineTuneModule, TaskDataModule]


def build(folder: Path, images: Path, texts: Any, adapter: Any = None, **settings: Any) -> Build:
    data = TaskDataModule("image_classification", "local", path=str(images), batch_size=8, selection_rows=9)
    module = FineTuneModule(BackboneConfig("local", path=str(folder)), adapter, head_init=texts, warmup=0, **settings)
    module.objective = objective_of(data.sets)
    data.processor = module.processor
    data.sets.fit_context(module.limits)
    return module, data


def zero_shot(folder: Path, pixels: torch.Tensor, text: str, names: tuple[str, ...] = NAMES) -> torch.Tensor:
    """What transformers' own CLIP says about images and texts."""
    tokens = AutoTokenizer.from_pretrained(folder)(
        [text.format(name) for name in names], padding=True, return_tensors="pt"
    )
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return CLIPModel.from_pretrained(folder).eval()(pixel_values=pixels, **inputs).logits_per_image


@pytest.mark.parametrize("adapter", [None, peft.LoraConfig(r=2)], ids=["alone", "lora"])
def test_the_untrained_model_is_zero_shot_clip(adapter: Any, clip: Path, image_folder: Path) -> None:
    module, data = build(clip, image_folder, PHOTO, adapter)
    module.configure_model()
    pixels = first_batch(data)["pixel_values"]
    with torch.no_grad():
        found = module.network.eval()(pixel_values=pixels).logits
    expected = zero_shot(clip, pixels, PHOTO)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_several_texts_are_averaged_on_the_sphere(clip: Path, image_folder: Path) -> None:
    """A ``_`` in a name is a space."""
    module, data = build(clip, image_folder, [PHOTO, DRAWING])
    module.configure_model()
    pixels = first_batch(data)["pixel_values"]
    with torch.no_grad():
        found = module.network.eval()(pixel_values=pixels).logits
    model: Any = CLIPModel.from_pretrained(clip)
    tokenizer, embedded = AutoTokenizer.from_pretrained(clip), []
    for name in NAMES:
        each = []
        for text in (PHOTO, DRAWING):
            ids = tokenizer(text.format(name), return_tensors="pt")["input_ids"]
            each.append(F.normalize(model.get_text_features(input_ids=ids).pooler_output[0], dim=0))
        embedded.append(F.normalize(each[0] + each[1], dim=0))
    features = F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    expected = model.logit_scale.exp() * features @ torch.stack(embedded).T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    data = TaskDataModule(
        "image_classification", "local", path=str(image_folder), class_names=["blue", "green_sky", "red"]
    )
    other = FineTuneModule(BackboneConfig("local", path=str(clip)), head_init=PHOTO)
    other.objective = objective_of(data.sets)
    other.configure_model()
    with torch.no_grad():
        found = other.network.eval()(pixel_values=pixels).logits
    torch.testing.assert_close(found, zero_shot(clip, pixels, PHOTO, ("blue", "green sky", "red")), atol=1e-5, rtol=0)


def test_a_run_scores_zero_shot_first_and_trains_head_and_adapter_alone(
    clip: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*flags(clip, image_folder, tmp_path / "runs"), "--model.head_init", PHOTO]
    arguments += ["--data.selection_rows", "9", "--trainer.max_epochs", "2", "--model.head_lr", "1.0"]
    assert main(["fit", *arguments]) == 0
    run, record = only_run(tmp_path / "runs"), record_of(tmp_path / "runs")
    files = sorted((image_folder / "validation").rglob("*.png"))
    model, processor = load_adapter(run)
    pixels = processor([Image.open(file) for file in files], return_tensors="pt")["pixel_values"]
    right = [NAMES.index(file.parent.name) for file in files]
    predicted = zero_shot(clip, pixels, PHOTO).argmax(dim=1).tolist()
    accuracy = sum(a == b for a, b in zip(predicted, right, strict=True)) / len(right)
    assert record["metrics"]["base/acc"] == pytest.approx(accuracy)
    assert record["metrics"]["parameters/head"] == 3 * 12 + 3
    assert record["backbone"]["head"] == {"kind": "image_classification", "names": list(NAMES), "texts": [PHOTO]}
    base: Any = CLIPModel.from_pretrained(clip)
    inner: Any = model.get_base_model()  # type: ignore[operator]
    assert torch.equal(inner.visual_projection.weight, base.visual_projection.weight)
    started = build(clip, image_folder, PHOTO)[0]
    started.configure_model()
    assert not torch.equal(inner.classifier.weight, started.network.classifier.weight)  # type: ignore[arg-type,union-attr]
    with torch.no_grad():
        loss = F.cross_entropy(model(pixel_values=pixels).logits, torch.tensor(right)).item()
    assert loss == pytest.approx(record["metrics"]["report/nll"], abs=1e-5)
    capsys.readouterr()
    assert main(["params", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["head_parameters"] == 39
    assert main(["rank", str(run), "--truncate"]) == 0
    plain = CLIPForImageClassification.from_pretrained(clip, num_labels=3)
    with pytest.raises(UserError, match=r"head that starts from texts .* which a CLIPForImageClassification computes"):
        load_adapter(run, plain)
    assert main(["export", str(run), "--output", str(tmp_path / "adapter"), "--format", "adapter"]) == 0
    assert main(["export", str(run), "--output", str(tmp_path / "merged")]) == 2
    assert "transformers has no class for a head that starts from texts" in capsys.readouterr().err


@pytest.mark.slow
def test_full_fine_tuning_loads_again(clip: Path, image_folder: Path, tmp_path: Path) -> None:
    arguments = [*flags(clip, image_folder, tmp_path / "runs"), "--model.head_init", PHOTO, "--model.adapter", "null"]
    assert main(["fit", *arguments, "--data.selection_rows", "9", "--model.optimizer.lr", "1e-3"]) == 0
    run, record = only_run(tmp_path / "runs"), record_of(tmp_path / "runs")
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    assert main(["test", "--ckpt_path", checkpoint, "--run.folder", str(tmp_path / "test")]) == 0
    again = json.loads((tmp_path / "test" / "evaluation.json").read_text())["metrics"]
    assert again["report/nll"] == pytest.approx(record["metrics"]["report/nll"], abs=1e-5)
    model, _ = load_adapter(run)
    base: Any = CLIPModel.from_pretrained(clip)
    assert not torch.equal(model.visual_projection.weight, base.visual_projection.weight)  # type: ignore[arg-type,union-attr]


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("texts", ["a photo", "{} {}", "a {name}", "a {} }", [], [PHOTO, "a photo"]])
def test_texts_without_one_place_are_refused(texts: Any) -> None:
    with pytest.raises(
        UserError, match=r"^model.head_init is .*, but takes a text with one {} for the name of a class"
    ):
        FineTuneModule(head_init=texts)


def test_what_has_no_texts_is_refused(
    clip: Path, vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"model.head_init needs a CLIP model .* is of the kind 'vit'"):
        build(vision_model("vit"), image_folder, PHOTO)
    with pytest.raises(UserError, match=r"the text of the class 'blue' has 13 tokens, but CLIP reads at most 10"):
        build(clip, image_folder, "a a a a a a a a a a {}")[0].configure_model()
    with pytest.raises(UserError, match=r"has no tokenizer: copy the tokenizer files of the model"):
        build(vision_model("clip"), image_folder, PHOTO)[0].configure_model()
    trained = tmp_path / "trained"
    shutil.copytree(clip, trained)
    ClipWithClassTexts.from_pretrained(clip, num_labels=3).save_pretrained(trained)
    with pytest.raises(UserError, match=r"the files of .* hold a trained head: set it to null"):
        build(trained, image_folder, PHOTO)[0].configure_model()
    data = TaskDataModule("cola", "embedded")
    module = FineTuneModule(head_init=PHOTO)
    module.objective = objective_of(data.sets)
    with pytest.raises(UserError, match=r"model.head_init is for images with a class, but the task needs a head for"):
        module.location  # noqa: B018
