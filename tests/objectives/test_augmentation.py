"""Augmentation: the same images in any process, worker and resumed run; never in scores; bad input."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import check_arguments
from smoa_lightning.data.datamodule import TaskDataModule

from ..conftest import EXPERIMENTS
from ..runs import only_run
from .test_image_runs import flags, record_of
from .test_images import build

OWN = "tests.objectives.changes"
CHANGES: list[dict[str, Any]] = [
    {"class_path": f"{OWN}.Flip", "init_args": {"p": 0.5}},
    {"class_path": f"{OWN}.Each", "init_args": {"changes": [{"class_path": f"{OWN}.Brighten"}]}},
    {"class_path": f"{OWN}.Noise"},
]
Model = Callable[[str], Path]


def data_of(model: Path, images: Path, changes: Any, **settings: Any) -> TaskDataModule:
    data = build(model, images, data={"augmentation": changes, "seed": 3, **settings})[1]
    data.setup("fit")
    return data


def batches_of(loader: Any) -> list[dict[str, Any]]:
    return list(loader)


def by_row(batches: list[dict[str, Any]]) -> dict[int, torch.Tensor]:
    return {
        int(row): image for batch in batches for row, image in zip(batch["row"], batch["pixel_values"], strict=True)
    }


@pytest.mark.parametrize("change", CHANGES, ids=["torch", "python", "numpy"])
def test_an_image_depends_on_seed_epoch_and_row_alone(
    change: dict[str, Any], vision_model: Model, image_folder: Path
) -> None:
    data = data_of(vision_model("vit"), image_folder, [change])
    loader = data.train_dataloader()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    first, second = batches_of(loader), batches_of(loader)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # type: ignore[index]
    once, again = by_row(first), by_row(second)
    assert len(once) == 39
    assert once.keys() == again.keys()
    changed = sum(not torch.equal(once[row], again[row]) for row in once)
    assert 5 < changed < 35 if change is CHANGES[0] else changed > 35  # half of the images are flipped in one of them
    shown = {image.numpy().tobytes() for image in once.values()}
    assert len(shown) == 39

    data.train_dataloader().load_state_dict({"position": 7, "order": loader.state_dict()["order"]})
    resumed = next(iter(data.train_dataloader()))  # batch 2 of the second epoch of 5 batches
    assert torch.equal(resumed["pixel_values"], second[2]["pixel_values"])
    other = data_of(vision_model("vit"), image_folder, [change], num_workers=2)
    for batch, from_worker in zip(first, other.train_dataloader(), strict=True):
        assert torch.equal(batch["pixel_values"], from_worker["pixel_values"])
    changed_seed = data_of(vision_model("vit"), image_folder, [change], seed=4)
    assert any(
        not torch.equal(image, once[row]) for row, image in by_row(batches_of(changed_seed.train_dataloader())).items()
    )


def test_processes_see_the_images_of_one_process(vision_model: Model, image_folder: Path) -> None:
    one = batches_of(data_of(vision_model("vit"), image_folder, CHANGES).train_dataloader())
    for rank in (0, 1):
        data = data_of(vision_model("vit"), image_folder, CHANGES, batch_size=4)
        data._place_among_processes = lambda rank=rank: (rank, 2)  # type: ignore[method-assign]
        for whole, part in zip(one, data.train_dataloader(), strict=True):
            assert torch.equal(part["row"], whole["row"][rank::2])
            assert torch.equal(part["pixel_values"], whole["pixel_values"][rank::2])


def test_a_change_in_place_is_repeatable(vision_model: Model, image_folder: Path) -> None:
    data = data_of(vision_model("vit"), image_folder, [{"class_path": f"{OWN}.InPlace"}])
    plain, changed = (by_row(batches_of(each.train_dataloader()))
                      for each in (data_of(vision_model("vit"), image_folder, None), data))  # fmt: skip
    for row, pixels in plain.items():
        torch.testing.assert_close(changed[row], -pixels, atol=1 / 32, rtol=0)  # inverted before it is resized


def test_a_change_is_made_before_the_image_processor(vision_model: Model, image_folder: Path) -> None:
    always = [{"class_path": f"{OWN}.Flip", "init_args": {"p": 1.0}}]
    data = data_of(vision_model("vit"), image_folder, always)
    files = sorted((image_folder / "train").rglob("*.png"))
    for batch in data.train_dataloader():
        for row, pixels in zip(batch["row"].tolist(), batch["pixel_values"], strict=True):
            flipped = ImageOps.mirror(Image.open(files[row])).resize((8, 8), Image.Resampling.BILINEAR)
            expected = np.asarray(flipped).transpose(2, 0, 1) / 127.5 - 1
            np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-5)


def test_scored_images_are_never_changed(vision_model: Model, image_folder: Path) -> None:
    """Also those that select the checkpoint, and training images that are scored."""
    for settings in ({}, {"selection": "trained_rows", "selection_rows": None}):
        plain = data_of(vision_model("vit"), image_folder, None, **settings)
        changed = data_of(vision_model("vit"), image_folder, CHANGES, **settings)
        for part in ("val_dataloader", "test_dataloader"):
            for one, other in zip(getattr(plain, part)(), getattr(changed, part)(), strict=True):
                assert torch.equal(one["pixel_values"], other["pixel_values"])
    none = data_of(vision_model("vit"), image_folder, [])
    for one, other in zip(
        plain.train_dataloader(),
        data_of(
            vision_model("vit"), image_folder, None, selection="trained_rows", selection_rows=None
        ).train_dataloader(),
        strict=True,
    ):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
    assert "augmentation" not in none.train_dataloader().order.identity()


def test_a_checkpoint_of_other_changes_is_refused(vision_model: Model, image_folder: Path) -> None:
    with_changes = data_of(vision_model("vit"), image_folder, CHANGES)
    state = with_changes.train_dataloader().state_dict()
    for other in (None, CHANGES[:1]):
        data = data_of(vision_model("vit"), image_folder, other)
        with pytest.raises(
            UserError, match=r"the checkpoint has a different order of batches than this run \(augmentation"
        ):
            data.train_dataloader().load_state_dict(state)
    with_changes.train_dataloader().load_state_dict(state)


def test_a_run_records_its_changes_and_evaluations_import_none(
    vision_model: Model, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = flags(vision_model("vit"), image_folder, tmp_path / "runs")
    arguments += ["--data.augmentation", json.dumps(CHANGES), "--data.selection_rows", "9", "--trainer.max_epochs", "2"]
    assert main(["fit", *arguments]) == 0
    run, record = only_run(tmp_path / "runs"), record_of(tmp_path / "runs")
    assert record["config"]["data"]["augmentation"] == CHANGES
    assert f"{OWN}.Flip" in record["other_classes"]
    monkeypatch.setattr("smoa_lightning.data.encoding.augmentation.import_class", None)
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    capsys.readouterr()
    assert main(["test", "--ckpt_path", checkpoint, "--run.folder", str(tmp_path / "test")]) == 0
    shown = capsys.readouterr()
    assert "differs from the checkpoint" not in shown.out + shown.err
    again = json.loads((tmp_path / "test" / "evaluation.json").read_text())["metrics"]
    assert again["report/nll"] == pytest.approx(record["metrics"]["report/nll"], abs=1e-6)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"class_path": "torchvisio.Flip"}, r"cannot import .torchvisio.Flip.: No module .*; for a file .* PYTHONPATH"),
        ({"class_path": f"{OWN}.Filp"}, r"there is no class 'tests.objectives.changes.Filp'; the nearest are Flip"),
        ({"class_path": f"{OWN}.random"}, r"'tests.objectives.changes.random' is not a class"),
        ({"class_path": "subprocess.Popen", "init_args": {"args": []}}, r"'subprocess.Popen' is not allowed as"),
        ({"class_path": f"{OWN}.Flip", "init_args": {"q": 1}}, r"Flip refuses its init_args: .*'q'"),
        ({"class_path": f"{OWN}.NotCallable"}, r"NotCallable makes an object that cannot be called with an image"),
        ({"class_path": f"{OWN}.ToArray"}, r"ToArray returns numpy.ndarray for an image, but must return an image"),
        ({"class_path": f"{OWN}.Fails"}, r"cannot change the image of row \d+: ZeroDivisionError: no pixels in"),
        ({"class_path": f"{OWN}.Wide", "init_args": {"kind": "float"}}, r"returns an image of the mode 'F', whose"),
        ({"class_path": f"{OWN}.Wide", "init_args": {"kind": "16 bits"}}, r"returns an image of the mode 'I;16'"),
        ({"class_path": f"{OWN}.Wide", "init_args": {"kind": "none"}}, r"Wide returns an image without pixels"),
        ({"class_path": f"{OWN}.Each", "init_args": {"changes": [{"class_path": f"{OWN}.Flip", "p": 1}]}},
         r"{'class_path': '.*Flip', 'p': 1} must be a mapping with class_path and the mapping init_args alone"),
        ({"class_path": f"{OWN}.Each", "init_args": {"changes": [{"class_path": f"{OWN}.Flip", "init_args": [1]}]}},
         r"'init_args': \[1\]} must be a mapping with class_path and the mapping init_args alone"),
        ({"class_path": f"{OWN}.OwnGenerator"}, r"OwnGenerator change one image in two ways with the same seed"),
    ],
)  # fmt: skip
def test_bad_changes_are_one_sentence_before_weights_are_read(
    entry: dict[str, Any], sentence: str, vision_model: Model, image_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises(UserError, match=f"^data.augmentation: .*{sentence}") as caught:
        data_of(vision_model("vit"), image_folder, [entry])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ('[{"class_path": "a.B", "p": 1}]', "entry 1 is {'class_path': 'a.B', 'p': 1}, but the setting takes"),
        ('[{"init_args": {}}]', "data.augmentation: entry 1 is {'init_args': {}}, but the setting"),
        ('{"class_path": "a.B"}', "data.augmentation: entry 1 is {'class_path': 'a.B'}, but the setting takes a list"),
        ('["a.B"]', "data.augmentation: entry 1 is 'a.B', but the setting takes a list of mappings"),
    ],
)  # fmt: skip
def test_other_forms_are_refused_early(
    value: str, sentence: str, vision_model: Model, image_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    arguments = flags(vision_model("vit"), image_folder, tmp_path / "runs")
    assert main(["fit", *arguments, "--data.augmentation", value]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_later_row_is_one_sentence(workers: int, vision_model: Model, image_folder: Path) -> None:
    """Also from a worker process, to whose errors torch adds the traceback."""
    data = data_of(vision_model("vit"), image_folder, [{"class_path": f"{OWN}.FailsOnBlue"}], num_workers=workers)
    with pytest.raises(UserError) as caught:
        batches_of(data.train_dataloader())
    assert "FailsOnBlue cannot change the image of row " in str(caught.value)
    assert str(caught.value).endswith(": ValueError: too blue")
    assert "\n" not in str(caught.value)


def test_images_of_different_sizes_are_refused(vision_model: Model, image_folder: Path, tmp_path: Path) -> None:
    """With an image processor that does not resize: those that a change makes, and those in the files."""
    model, images = tmp_path / "model", tmp_path / "images"
    shutil.copytree(vision_model("vit"), model)
    settings = json.loads((model / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").write_text(json.dumps(settings | {"do_resize": False}))
    sentence = (
        r"^data.augmentation: a changed image has pixels of the shape \(3, 6, 6\), and without changes \(3, 10, 12\)"
    )
    with pytest.raises(UserError, match=sentence):
        data_of(model, image_folder, [{"class_path": f"{OWN}.Crop", "init_args": {"size": 6}}])
    shutil.copytree(image_folder, images)
    Image.open(images / "train" / "red" / "03.png").resize((5, 5)).save(images / "train" / "red" / "03.png")
    with pytest.raises(UserError, match=r"row \d+ has pixels of the shape .* and row \d+ has pixels of .* not resize"):
        batches_of(data_of(model, images, None, selection_rows=0).train_dataloader())


def test_changes_are_for_images() -> None:
    with pytest.raises(UserError, match=r"data.augmentation changes images, but the rows of the task 'cola' are texts"):
        TaskDataModule("cola", augmentation=CHANGES)


def test_the_overlay_of_torchvision(vision_model: Model, image_folder: Path, tmp_path: Path, capsys: Any) -> None:
    overlay = ["--config", str(EXPERIMENTS / "images" / "augmented.yaml")]
    arguments = [*flags(vision_model("vit"), image_folder, tmp_path / "runs"), *overlay, "--trainer.max_steps", "1"]
    check_arguments("fit", arguments)
    try:
        import torchvision  # noqa: F401
    except ImportError:
        assert main(["fit", *arguments]) == 2
        assert "it comes with: pip install 'smoa-lightning[images]'" in capsys.readouterr().err
    else:
        assert main(["fit", *arguments, "--model.warmup", "0"]) == 0
