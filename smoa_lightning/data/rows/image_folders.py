"""Folders of images: one sub-folder for each class, with the name of the class; images may be deeper in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.located import Located
from smoa_lightning.data.rows.locations import ALL_SPLIT_NAMES, entries, is_folder, is_url, joined
from smoa_lightning.data.tasks.image_field import ENDINGS

logger = logging.getLogger(__name__)


def is_image(name: str) -> bool:
    """Return whether a file name has an ending of images."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def is_image_folder(folder: str) -> bool:
    """Return whether a folder has a sub-folder with images in it, and not only with the images of a split."""
    return is_folder(folder) and any(
        name.lower() not in ALL_SPLIT_NAMES and _holds_images(joined(folder, name)) for name in _folders(folder)
    )


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
    return [name for name in _folders(folder) if any(map(is_image, _files(joined(folder, name))))]


def _folders(folder: str) -> list[str]:
    """Return the names of the sub-folders, sorted."""
    return sorted(name for name, is_sub in entries(folder).items() if is_sub and not name.startswith("."))


def _holds_images(folder: str) -> bool:
    """Whether a folder itself has images."""
    return any(map(is_image, entries(folder)))


def _files(folder: str) -> Iterator[str]:
    """Yield the files of a folder and of the folders in it, with their paths in it, sorted."""
    for name, is_sub in sorted(entries(folder).items()):
        if name.startswith("."):
            continue
        if is_sub:
            yield from (f"{name}/{file}" for file in _files(joined(folder, name)))
        else:
            yield name


def read_images(folder: str) -> Iterator[Located]:
    """Yield a row for each image of a folder, the classes and their files sorted by name.

    Raises:
        UserError: The folder is a URL.
    """
    if is_url(folder):
        raise UserError(f"data.path: {folder} is a URL, but folders of images are read on this machine only: copy it")
    others: list[str] = []
    for name in class_names(folder):
        for file in _files(joined(folder, name)):
            place = joined(joined(folder, name), file)
            if is_image(file):
                yield Located(place, {"image": {"path": place}, "label": name})
            else:
                others.append(place)
    if others:
        what = "1 file is no image and is" if len(others) == 1 else f"{len(others)} files are no images and are"
        logger.info("%s not read, such as %s", what, others[0])
