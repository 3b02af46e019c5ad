"""Rows with images: classes whose names are numbers, and files that rows name by their path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.rows.sources import _hub_rows
from smoa_lightning.data.tasks import get_task
from smoa_lightning.data.tasks.images import with_class_names

datasets = pytest.importorskip("datasets")


def module(path: Path, **settings: Any) -> TaskDataModule:
    return TaskDataModule("image_classification", "local", path=str(path), selection_rows=0, **settings)


def classes(data: TaskDataModule) -> list[str]:
    """The names of the classes of the training rows."""
    names = data.task.labelling.names  # type: ignore[union-attr]
    return [names[row["label"]] for row in data.rows("train")]


@pytest.mark.parametrize("names", [["0", "1", "10", "11", "2"], ["3", "5", "7"], ["000", "001"], ["0", "1", "2"]])
def test_positions_of_classes_whose_names_are_numbers(names: list[str], tmp_path: Path) -> None:
    """A column ``ClassLabel`` holds positions; a folder of images sorts its names as texts."""
    for number, name in enumerate(names):
        folder = tmp_path / "images" / "train" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(folder / "a.png")
    whole = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "images" / "train"), split="train")
    (tmp_path / "parquet").mkdir()
    whole.to_parquet(tmp_path / "parquet" / "train.parquet")
    whole.save_to_disk(str(tmp_path / "saved" / "train"))
    assert classes(module(tmp_path / "images")) == names
    assert classes(module(tmp_path / "parquet")) == names
    assert classes(module(tmp_path / "saved", class_names=names)) == names
    other = names[::-1]  # named by the user in another order: a name is still a name
    assert classes(module(tmp_path / "parquet", class_names=other)) == names


@pytest.mark.parametrize(("stored", "named"), [(["1", "0"], ["yes", "no"]), (["1", "2", "3"], ["bad", "fair", "good"])])
def test_names_that_are_words_belong_to_positions(stored: list[str], named: list[str], tmp_path: Path) -> None:
    for number, _ in enumerate(stored):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = {"image": [str(tmp_path / f"{n}.png") for n in range(len(stored))], "label": list(range(len(stored)))}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=stored))
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    assert classes(module(tmp_path, class_names=named)) == named


def test_a_replaced_image_that_rows_name_by_its_path_is_read_again(tmp_path: Path) -> None:
    rows = [{"image": {"path": str(tmp_path / f"{n}.png")}, "label": n} for n in range(2)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for n in range(2):
        Image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / f"{n}.png")

    def images() -> list[str]:
        return [row["image"] for row in module(tmp_path, class_names=["a", "b"]).rows("train")]

    first = images()
    assert images() == first
    Image.new("RGB", (2, 2), (0, 0, 255)).save(tmp_path / "1.png")
    second = images()
    assert second[0] == first[0]
    assert second[1] != first[1]
    assert images() == second
    Image.new("RGB", (2, 2), (0, 255, 0)).save(tmp_path / "0.png")
    third = images()
    assert third[0] not in (first[0], second[1])
    assert third[1] == second[1]
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match=r"train\.jsonl, row 2: .*1\.png, which cannot be read"):
        images()


def test_a_relative_path_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"image": {"path": "0.png"}, "label": n} for n in range(2)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for number, name in enumerate(("one", "two", "one")):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        if number < 2:
            Image.new("RGB", (2, 2), (100 * number, 0, 0)).save("0.png")
        found.append(module(tmp_path / "data", class_names=["a", "b"]).rows("train")[0]["image"])
    assert found[0] == found[2] != found[1]


def test_positions_of_a_data_set_of_the_hub(tmp_path: Path) -> None:
    names = ["0", "1", "10", "2"]
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    rows = {"image": [str(tmp_path / "a.png")] * 4, "label": list(range(4))}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    (tmp_path / "snapshot" / "data").mkdir(parents=True)
    file = tmp_path / "snapshot" / "data" / "train-00000-of-00001.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    task = with_class_names(get_task("image_classification"), names)
    read = [row["label"] for _, row in _hub_rows(task, "train", tmp_path / "snapshot", "own/numbers")]
    assert read == names


def test_an_image_that_would_fill_the_memory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png", pnginfo=PngImagePlugin.PngInfo())
    row = {"image": {"path": str(tmp_path / "0.png")}, "label": 0}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # of 179 million
    with pytest.raises(UserError, match=r"holds an image that cannot be decoded .*64 pixels"):
        module(tmp_path, class_names=["a", "b"]).rows("train")
