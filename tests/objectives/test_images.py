"""Images with a class: the loss against transformers and peft, every family, samples of each class, bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, ViTForImageClassification

from smoa_lightning.adapters import BottleneckConfig, SMoAConfig, SurmConfig
from smoa_lightning.adapters.idle_layers import check_not_idle, idle_layers
from smoa_lightning.adapters.inspect import adapted_layers
from smoa_lightning.adapters.parameters import head_parameters
from smoa_lightning.backbones.backbone import BackboneConfig, load_skeleton, locate
from smoa_lightning.backbones.heads import Head
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.objectives import objective_of
from smoa_lightning.training.adapter_folder import load_adapter, save_adapter
from smoa_lightning.training.module import FineTuneModule

from .image_models import FAMILIES, write_images
from .test_loss import FACTS, first_batch, own_parameters, trainer

Build = tuple[FineTuneModule, TaskDataModule]


def build(folder: Path, images: Path, adapter: Any = None, data: dict[str, Any] | None = None) -> Build:
    settings = {"batch_size": 8, "selection_rows": 9, "source": "local", "path": str(images)} | (data or {})
    rows = TaskDataModule("image_classification", **settings)
    module = FineTuneModule(BackboneConfig("local", path=str(folder)), adapter, warmup=0)
    module.objective = objective_of(rows.sets)
    rows.processor = module.processor
    rows.sets.fit_context(module.limits)
    return module, rows


@pytest.mark.parametrize("lora", [False, True], ids=["alone", "lora"])
def test_loss_is_that_of_transformers(
    lora: bool, vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> None:
    """On the pixels that Pillow and NumPy give without the image processor."""
    module, data = build(vision_model("vit"), image_folder, peft.LoraConfig(r=2, init_lora_weights=False))
    module.adapter_config = module.adapter_config if lora else None
    module.configure_model()
    batch, network = first_batch(data), module.network
    loss, targets = module.objective.loss(network.eval(), batch)
    network.save_pretrained(tmp_path)  # type: ignore[operator]
    names = {"id2label": dict(enumerate(("blue", "green", "red"))), "label2id": {"blue": 0, "green": 1, "red": 2}}
    reference: Any = ViTForImageClassification.from_pretrained(vision_model("vit") if lora else tmp_path, **names)
    if lora:
        reference = peft.PeftModel.from_pretrained(reference, str(tmp_path))
    files = sorted((image_folder / "train").rglob("*.png"))
    resized = [Image.open(files[row]).resize((8, 8), Image.Resampling.BILINEAR) for row in batch["row"].tolist()]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2) / 127.5 - 1
    labels = torch.tensor([("blue", "green", "red").index(files[row].parent.name) for row in batch["row"].tolist()])
    expected = reference.eval()(pixel_values=pixels, labels=labels).loss
    assert (loss / targets).item() == pytest.approx(expected.item(), abs=1e-6)
    assert targets == len(labels) == 8


LAYERS = {"dinov2": "encoder.layer", "swin": "encoder.layers.0.blocks", "clip": "encoder.layers"}
NAMES = tuple(f"attention.{name}_proj" for name in "qkv")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_adapter_and_head_and_loads_again(
    family: str, vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> None:
    module, data = build(vision_model(family), image_folder, SMoAConfig(r=2, num_subspaces=2))
    module.configure_model()
    network: Any = module.network
    before, head = own_parameters(network), [p.detach().clone() for p in head_parameters(network)]
    frozen = {name: p.detach().clone() for name, p in network.named_parameters() if not p.requires_grad}
    trainer(max_steps=2).fit(module, datamodule=data)
    after = own_parameters(network)
    assert not [name for name in before if torch.equal(before[name], after[name])]
    assert not [True for old, new in zip(head, head_parameters(network), strict=True) if torch.equal(old, new)]
    assert all(torch.equal(parameter, network.get_parameter(name)) for name, parameter in frozen.items())
    part = "vision_model" if family == "clip" else family
    attention = "self_attn" if family == "clip" else "attention"
    inner = [*(f"{attention}.{name}_proj" for name in "qkv"), "mlp.fc1", "mlp.fc2"]
    expected = {f"{part}.{LAYERS.get(family, 'layers')}.{n}.{name}" for n in range(2) for name in inner}
    assert {layer.name for layer in adapted_layers(network)} == expected

    save_adapter(module, tmp_path / "adapter", FACTS)
    loaded, processor = load_adapter(tmp_path / "adapter")
    images = [Image.open(file) for file in sorted((image_folder / "validation").rglob("*.png"))[:4]]
    pixels = processor(images, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(loaded(**pixels).logits, network.eval()(**pixels).logits, atol=1e-6)
    assert "model, image_processor = load_adapter" in (tmp_path / "adapter" / "README.md").read_text()


STRATEGIES: dict[str, Any] = {
    "ia3": peft.IA3Config,
    "oft": lambda: peft.OFTConfig(oft_block_size=4),
    "lora_all_linear": lambda: peft.LoraConfig(r=2, target_modules="all-linear"),
    "surm": lambda: SurmConfig(structure="circulant"),
    "surm_slot": lambda: SurmConfig(structure="circulant", slot="adapter"),
    "bottleneck": lambda: BottleneckConfig(bottleneck_size=4),
}


@pytest.mark.parametrize("family", ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swin", "clip"))])
@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_move_on_every_kind_of_family(
    name: str, family: str, vision_model: Callable[[str], Path], image_folder: Path
) -> None:
    module, data = build(vision_model(family), image_folder, STRATEGIES[name]())
    module.configure_model()
    before = own_parameters(module.network)
    trainer(max_steps=2).fit(module, datamodule=data)
    after = own_parameters(module.network)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert {id(p) for p in head_parameters(module.network)} <= {
        id(p) for group in module.trainer.optimizers[0].param_groups for p in group["params"]
    }


def test_gradient_checkpointing_gives_the_same_gradients(
    vision_model: Callable[[str], Path], image_folder: Path
) -> None:
    for family in ("vit", "clip"):
        found = []
        for checkpointing in (False, True):
            module, data = build(vision_model(family), image_folder, SMoAConfig(r=2))
            module.backbone_config.gradient_checkpointing = checkpointing
            module.configure_model()
            module.network.train()
            module.objective.loss(module.network, first_batch(data))[0].backward()
            found.append([p.grad for p in module.network.parameters() if p.grad is not None])
        assert len(found[0]) == len(found[1]) > 10
        for one, two in zip(*found, strict=True):
            torch.testing.assert_close(one, two)


# ------------------------------------------------------------------------------------------------------- the rows


def test_samples_of_each_class_are_seeded_and_nested(vision_model: Callable[[str], Path], image_folder: Path) -> None:
    def chosen(count: int, seed: int) -> tuple[list[int], list[float]]:
        settings = {"train_per_class": count, "seed": seed, "selection_rows": 0}
        _, data = build(vision_model("vit"), image_folder, data=settings)
        data.setup("fit")
        return data.indices("train"), data.sets.training_items().labels.tolist()  # type: ignore[attr-defined]

    rows, labels = chosen(5, 0)
    assert sorted(labels) == sorted([0.0, 1.0, 2.0] * 5)
    assert rows == chosen(5, 0)[0] != chosen(5, 1)[0]
    assert set(chosen(3, 0)[0]) < set(rows)
    with pytest.raises(
        UserError, match=r"train_per_class is 17, but the class 'blue' of image_classification has only"
    ):
        chosen(17, 0)
    with pytest.raises(UserError, match=r"data.limit_train_rows is 4 and data.train_per_class is 2"):
        TaskDataModule("cola", train_per_class=2, limit_train_rows=4)
    with pytest.raises(UserError, match=r"train_per_class is 2, but task 'piqa' has no classes"):
        TaskDataModule("piqa", "embedded", train_per_class=2).indices("train")


def test_names_of_classes_come_from_folders_settings_or_parquet(image_folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def names(path: Path, **settings: Any) -> tuple[str, ...]:
        data = TaskDataModule("image_classification", "local", path=str(path), **settings)
        assert len(data.rows("train")) > 0
        return objective_of(data.sets).head.names

    assert names(image_folder) == ("blue", "green", "red")
    assert names(image_folder, class_names=["red", "green", "blue"]) == ("red", "green", "blue")
    whole = datasets.load_dataset("imagefolder", data_dir=str(image_folder / "train"), split="train")
    whole.to_parquet(tmp_path / "train.parquet")
    assert names(tmp_path) == ("blue", "green", "red")
    kinds = datasets.ClassLabel(names=["cold", "warm"])  # a second column of classes, before the first
    both = whole.add_column("kind", [0] * len(whole)).cast_column("kind", kinds).rename_column("label", "fine")
    (tmp_path / "two").mkdir()
    both.rename_column("kind", "label").to_parquet(tmp_path / "two" / "train.parquet")
    mapped = {"image": "image", "label": "fine"}
    assert names(tmp_path / "two", fields=mapped) == ("blue", "green", "red")
    assert names(tmp_path / "two") == ("cold", "warm")
    ours = TaskDataModule("image_classification", "local", path=str(image_folder))
    theirs = TaskDataModule("image_classification", "local", path=str(tmp_path))
    assert [row["label"] for row in ours.rows("train")] == [row["label"] for row in theirs.rows("train")]
    assert [row["image"] for row in ours.rows("train")] == [row["image"] for row in theirs.rows("train")]


def test_turned_and_transparent_images_are_read_as_datasets_reads_them(
    vision_model: Callable[[str], Path], tmp_path: Path
) -> None:
    write_images(tmp_path / "train", {"blue": 2, "green": 2})
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "train" / "blue" / "00.png", exif=exif)
    _, data = build(vision_model("vit"), tmp_path, data={"selection_rows": 0})
    first = data.sets.training_items()[0]
    expected = np.rot90(pixels, -1).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(first.pixels, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint16, np.uint8])
def test_images_of_16_bits_have_the_pixels_of_8_bits(
    kind: type, vision_model: Callable[[str], Path], tmp_path: Path
) -> None:
    write_images(tmp_path / "train", {"blue": 2, "green": 2})
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    scaled = values if kind is np.uint8 else values.astype(kind) * 257
    Image.fromarray(scaled).save(tmp_path / "train" / "blue" / "00.png")
    _, data = build(vision_model("vit"), tmp_path, data={"selection_rows": 0})
    first = data.sets.training_items()[0]
    np.testing.assert_allclose(first.pixels, np.repeat(values[None] / 127.5 - 1, 3, axis=0), atol=1e-5)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "values",
    [np.full((8, 8), 70000, np.int32), np.full((8, 8), 200, np.int32), np.ones((8, 8), np.float32)],
    ids=["I", "I of small values", "F"],
)
def test_values_of_32_bits_are_refused(values: np.ndarray, image_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(image_folder, tmp_path / "images")
    Image.fromarray(values).save(tmp_path / "images" / "train" / "green" / "00.tiff")
    with pytest.raises(UserError, match=r"00\.tiff: field 'image' .*its values have 32 bits"):
        TaskDataModule("image_classification", "local", path=str(tmp_path / "images")).rows("train")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n cut"])
def test_an_image_that_cannot_be_decoded_is_named(content: bytes, image_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(image_folder, tmp_path / "images")
    file = tmp_path / "images" / "train" / "green" / "03.png"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        TaskDataModule("image_classification", "local", path=str(tmp_path / "images")).rows("train")
    assert str(caught.value).startswith(f"{file}: field 'image' holds an image that cannot be decoded (")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)
    data = TaskDataModule("image_classification", "local", path=str(tmp_path / "images"), bad_rows="skip")
    assert len(data.rows("train")) == 47


def test_labels_outside_of_the_names_and_one_class_only_are_refused(
    vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> None:
    settings = {"class_names": ["blue", "green"]}
    data = TaskDataModule("image_classification", "local", path=str(image_folder), **settings)
    with pytest.raises(
        UserError, match=r"red/00.png: field 'label' is 'red', but must be one of 0 \(blue\), 1 \(green\)"
    ):
        data.rows("train")
    write_images(tmp_path / "train", {"blue": 8})
    _, data = build(vision_model("vit"), tmp_path, data={"class_names": ["blue", "red"], "selection_rows": 0})
    with pytest.raises(UserError, match=r"all 8 training rows of image_classification have the label 'blue'"):
        data.setup("fit")
    with pytest.raises(UserError, match=r"the training images in .* have one class, blue; two are needed"):
        TaskDataModule("image_classification", "local", path=str(tmp_path))
    for wrong, message in ((["blue"], r"has 1 name\(s\)"), (["a", "b", "a"], "has 'a' twice")):
        with pytest.raises(UserError, match=f"data.class_names {message}"):
            TaskDataModule("image_classification", "local", path=str(tmp_path), class_names=wrong)
    for task in ("cola", "piqa"):
        with pytest.raises(UserError) as error:
            TaskDataModule(task, class_names=["a", "b"])
        assert str(error.value) == (
            f"data.class_names is for the task 'image_classification', but data.task is {task!r}: remove it; texts "
            "with classes of your own are rows of the task 'choice', with the classes as choices "
            "(docs/tutorials/own_rows.md)."
        )
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"image": "x", "label": 0}\n')
    with pytest.raises(UserError, match=r"the names of the classes are not known before the rows are read"):
        TaskDataModule("image_classification", "local", path=str(tmp_path / "rows"))


def test_models_that_do_not_fit_are_refused(
    vision_model: Callable[[str], Path], tiny_backbone: Path, image_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"'llama', which has no head for image classification .* choose a vision model"
    ):
        build(tiny_backbone, image_folder)[0].network  # noqa: B018
    bare = tmp_path / "bare"
    shutil.copytree(vision_model("vit"), bare, ignore=shutil.ignore_patterns("preprocessor*"))
    with pytest.raises(UserError, match=r"has no image processor: copy the file preprocessor_config.json"):
        build(bare, image_folder)
    module, _ = build(vision_model("vit"), image_folder, peft.PromptTuningConfig(num_virtual_tokens=3))
    with pytest.raises(
        UserError, match=r"PromptTuningConfig puts virtual tokens before a text, but the model reads images"
    ):
        module.configure_model()
    tokens = [peft.LoraConfig(trainable_token_indices=[1]), peft.TrainableTokensConfig(token_indices=[1])]
    for config in tokens:
        module, _ = build(vision_model("clip"), image_folder, config)
        with pytest.raises(UserError, match=r"token_indices names tokens, but the model reads images: remove it"):
            module.configure_model()


def test_a_head_in_the_files_is_loaded(vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path) -> None:
    for family in ("vit", "clip"):
        model = AutoModelForImageClassification.from_pretrained(vision_model(family), num_labels=3)
        shutil.copytree(vision_model(family), tmp_path / family)
        model.save_pretrained(tmp_path / family)
        module, _ = build(tmp_path / family, image_folder)
        module.configure_model()
        assert torch.equal(module.network.classifier.weight, model.classifier.weight)  # type: ignore[union-attr,arg-type]


class ReadsWeights(torch.nn.Module):
    """A model with one layer that it calls, and one whose weight it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(self.called(pixel_values.flatten(1)), self.read.weight)


def test_an_adapter_on_a_layer_that_is_never_called_is_refused(vision_model: Callable[[str], Path]) -> None:
    with torch.device("meta"):
        model = ReadsWeights()
    idle = idle_layers(model, (1, 2, 2))
    assert idle == {"read"}
    check_not_idle(peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["called"])), idle)
    with torch.device("meta"):
        model = ReadsWeights()
    with pytest.raises(UserError, match=r"target_modules matches read, but the model reads the weight of this layer"):
        check_not_idle(peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear")), idle)
    assert idle_layers(model, (1, 3, 3)) == set()  # the trial fails
    for family in FAMILIES:
        config = BackboneConfig("local", path=str(vision_model(family)))
        skeleton = load_skeleton(config, locate(config, Head("image_classification", ("a", "b"))))
        assert idle_layers(skeleton, (3, 8, 8)) == set()
