"""The names of the classes of your own images, before rows are read: the head of the model needs their number."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.columnar_readers import label_names
from smoa_lightning.data.rows.image_folders import class_names, is_image_folder
from smoa_lightning.data.rows.split_files import split_files
from smoa_lightning.data.rows.task_rows import RowSettings


def named_classes(settings: RowSettings, given: Sequence[str] | None, column: str = "label") -> list[str] | None:
    """Return the names of the classes: the given ones, or those of the training images.

    These are the names of the folders, or the names of a column ``ClassLabel`` that the library ``datasets`` has
    written to a Parquet file.

    Args:
        settings: Where the rows are.
        given: ``data.class_names``.
        column: The name of the labels in the files.

    Returns:
        None to keep the names of the task.

    Raises:
        UserError: There are no names.
    """
    if given is not None:
        return list(given)
    if settings.source == "embedded" or (settings.source != "local" and settings.repository is None):
        return None  # without a repository, ``TaskRows.resolve`` refuses the hub
    if settings.source == "local":
        first = split_files(settings.path, "train")[0]
        names = class_names(first) if is_image_folder(first) else _in_parquet(first, column)
        if len(names) == 1:
            raise UserError(f"data.path: the training images in {first} have one class, {names[0]}; two are needed")
        if names:
            return names
    raise UserError(
        "data.class_names: the names of the classes are not known before the rows are read; name them in the order of "
        "their labels, such as [cat, dog], or give a folder with a sub-folder for each class"
    )


def _in_parquet(file: str, column: str) -> list[str]:
    """Return the names of the classes of a column in the metadata of a Parquet file; empty if there are none."""
    import pyarrow as pa
    from pyarrow import parquet

    if not file.endswith(".parquet"):
        return []
    with contextlib.suppress(pa.ArrowException, OSError):
        return label_names(parquet.read_schema(file).metadata).get(column, [])
    return []
