"""Folders of images that lack a folder of a class or of a split are refused in their own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.rows.image_folders import class_names, read_images
from smoa_lightning.data.rows.split_files import split_files

CLASSES = ("cat/1.jpg", "dog/1.jpg")


def make(folder: Path, *files: str) -> Path:
    """Make files without content: only names are looked at."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def images(path: Any) -> TaskDataModule:
    return TaskDataModule("image_classification", "local", path=path)


@pytest.mark.parametrize(
    ("files", "given", "refused"),
    [
        (["train/1.jpg"], ".", "train"),
        (["validation/1.jpg"], ".", "validation"),
        (["train/1.jpg", "validation/1.jpg"], ".", "train"),
        (["training/1.PNG", "test/cat/1.jpg"], ".", "training"),
        (["1.jpg", "2.jpg"], ".", "."),
        (["train/1.jpg"], "train", "train"),
    ],
)
def test_images_without_folders_of_classes_are_refused(
    tmp_path: Path, files: list[str], given: str, refused: str
) -> None:
    make(tmp_path, *files)
    place = tmp_path / refused
    sentence = (
        f"data.path: {place} holds images, but no folder for each class: "
        f"move them to such folders, for example {place}/cat/1.jpg"
    )
    for path in (str(tmp_path / given), {"train": str(place)}):
        with pytest.raises(UserError) as error:
            images(path)
        assert str(error.value) == sentence


def test_a_split_that_is_not_used_may_have_no_classes(tmp_path: Path) -> None:
    make(tmp_path, *(f"{split}/{file}" for split in ("train", "validation") for file in CLASSES), "test/1.jpg")
    data = images(str(tmp_path))
    assert data.has_report
    assert split_files(str(tmp_path), "train") == [str(tmp_path / "train")]


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    make(tmp_path, "train/1.jpg", "car/1.jpg")  # vehicles
    assert split_files(str(tmp_path), "train") == [str(tmp_path)]


@pytest.mark.parametrize("more", ["0.json", "sub/deep/9.JFIF"])
def test_every_entry_of_a_class_is_looked_at(more: str, tmp_path: Path) -> None:
    """Many other files do not hide a class, and images deeper in its folder are read."""
    others = [f"dog/{number:03d}{more}" for number in range(150)] if more == "0.json" else [f"dog/{more}"]
    make(tmp_path, "cat/1.jpg", *(["dog/z.jpg"] if more == "0.json" else []), *others)
    assert class_names(str(tmp_path)) == ["cat", "dog"]
    rows = [(row.place.removeprefix(f"{tmp_path}/"), row.row["label"]) for row in read_images(str(tmp_path))]
    assert rows == [("cat/1.jpg", "cat"), ("dog/z.jpg" if more == "0.json" else f"dog/{more}", "dog")]


def test_a_missing_split_of_images_is_a_folder(tmp_path: Path) -> None:
    make(tmp_path, *(f"{split}/{file}" for split in ("train", "test") for file in CLASSES))
    data = images(str(tmp_path))
    with pytest.raises(UserError) as error:
        data.has_report  # noqa: B018
    assert str(error.value) == (
        f"data.path: no folder for split 'validation' (such as validation/cat/1.jpg) in {tmp_path}; the folders with "
        "images are test, train; name the training folder itself to train without report rows; task "
        "'image_classification' reports on 'validation': to report on other rows, add --data.report_split test."
    )


def test_an_image_beside_the_folders_of_the_splits_is_no_fault(tmp_path: Path) -> None:
    make(tmp_path, "logo.png", *(f"train/{file}" for file in CLASSES))
    with pytest.raises(UserError, match=r"no folder for split 'validation' .* folders with images are train; name the"):
        images(str(tmp_path)).rows("validation")


def test_without_report_rows_the_way_to_have_some_is_said(tmp_path: Path) -> None:
    make(tmp_path, *CLASSES)
    data = images(str(tmp_path))
    assert not data.has_report
    assert data.sets.without_report == (
        "to have a report, set data.path to a folder with train and validation, or to "
        f"{{train: {tmp_path}, validation: PLACE}}"
    )
    with pytest.raises(UserError, match="holds training rows alone, so there is no split 'validation'; give a folder"):
        split_files(str(tmp_path), "validation")
    assert TaskDataModule("instruction", "embedded").sets.without_report == "data.report_tasks can name more tasks"
