"""Folders of images: one sub-folder for each class, with the name of the class."""

from __future__ import annotations

from collections.abc import Iterator

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.located import Located
from smoa_lightning.data.rows.locations import SPLIT_NAMES, entries, is_folder, is_url, joined
from smoa_lightning.data.tasks.image_field import ENDINGS

SEEN = 100  # entries of a sub-folder that are looked at


def is_image(name: str) -> bool:
    """Return whether a file name has an ending of images."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def is_image_folder(folder: str) -> bool:
    """Return whether a folder has a sub-folder with images in it, and not only with the images of a split."""
    splits = {name for names in SPLIT_NAMES.values() for name in names}
    return is_folder(folder) and any(name.lower() not in splits for name in _classes(folder))


def check_classes(folder: str) -> None:
    """Refuse a folder with images that are not in a folder for each class.

    Raises:
        UserError: Names the folder.
    """
    if is_folder(folder) and _holds_images(folder):
        raise UserError(
            f"data.path: {folder} holds images, but no folder for each class: move them to such folders, for example "
            f"{joined(folder, 'cat/1.jpg')}"
        )


def class_names(folder: str) -> list[str]:
    """Return the names of the sub-folders with images, sorted."""
    return sorted(_classes(folder))


def _classes(folder: str) -> Iterator[str]:
    for name, is_sub in entries(folder).items():
        if is_sub and not name.startswith(".") and _holds_images(joined(folder, name)):
            yield name


def _holds_images(folder: str) -> bool:
    return any(is_image(file) for file in list(entries(folder))[:SEEN])


def read_images(folder: str) -> Iterator[Located]:
    """Yield a row for each image of a folder, the classes and their files sorted by name.

    Raises:
        UserError: The folder is a URL.
    """
    if is_url(folder):
        raise UserError(f"data.path: {folder} is a URL, but folders of images are read on this machine only: copy it")
    for name in class_names(folder):
        inside = joined(folder, name)
        for file in sorted(file for file in entries(inside) if is_image(file)):
            place = joined(inside, file)
            yield Located(place, {"image": {"path": place}, "label": name})
