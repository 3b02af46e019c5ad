"""Local paths as users write them: ``~`` is the home folder in every setting, flag and argument that is a path."""

from __future__ import annotations

import difflib
import itertools
import re
from pathlib import Path

from smoa_lightning.common.errors import UserError

MOST_ENTRIES = 10_000  # of a folder that are compared with a name
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def local_path(text: str | Path) -> Path:
    """Return a path with the home folder in the place of ``~``; an unknown ``~user`` stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def near_place(place: str | Path) -> str:
    """Return the words about what a place where nothing is may mean, such as ``; the nearest is rows/my_rows``.

    Only the first part of the path that is missing is looked for, next to it. The text is empty if nothing is similar.
    """
    path = local_path(place)
    missing = next((part for part in reversed((path, *path.parents)) if not part.exists()), None)
    if missing is None or "://" in str(place) or not missing.parent.is_dir():
        return ""
    try:
        names = {
            entry.name.casefold(): entry.name for entry in itertools.islice(missing.parent.iterdir(), MOST_ENTRIES)
        }
    except OSError:  # the folder cannot be read
        return ""
    close = difflib.get_close_matches(missing.name.casefold(), names, 1)
    return f"; the nearest is {missing.parent / names[close[0]]}" if close else ""


def check_model_folder(path: str) -> None:
    """Refuse a path that is not a folder of a model of transformers.

    Raises:
        UserError: There is no such folder, or it has no ``config.json``.
    """
    if not local_path(path).exists():
        raise UserError(f"model.backbone.path: {path} does not exist{near_place(path)}")
    if not (local_path(path) / "config.json").is_file():
        raise UserError(f"model.backbone.path: no config.json in {path!r}, so it is not a model folder")


def check_rows(place: str, exists: bool) -> None:
    """Refuse a place of rows where nothing is, unless it is a pattern.

    Args:
        place: The place, as the settings have it.
        exists: Whether a file or folder is there.

    Raises:
        UserError: Nothing is there.
    """
    if not exists and not is_pattern(place):
        raise UserError(f"data.path: {place} does not exist{near_place(place)}.")


def is_pattern(place: str) -> bool:
    """Return whether a place may mean several files."""
    return any(sign in place for sign in "*?[")


def check_teacher_name(name: str) -> None:
    """Refuse a name that can only be that of a folder, if there is no such folder.

    Raises:
        UserError: It is no name on the hub either.
    """
    if not local_path(name).exists() and (name.startswith(".") or not HUB_NAME.fullmatch(name)):
        raise UserError(
            f"model.distillation.teacher: the folder {name!r} does not exist"
            f"{near_place(name) or ': name a run, an adapter folder or a model folder'}"
        )


def check_output_folder(folder: Path, flag: str) -> None:
    """Refuse a place where no folder can be made, before the work whose files go there.

    Args:
        folder: The folder to write to; it may be new.
        flag: The command and its flag, for the message.

    Raises:
        UserError: The path, or a part of it, is a file.
    """
    place = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    if place.exists() and not place.is_dir():
        raise UserError(f"{flag} {folder}: {place} is a file and not a folder; name a folder")


def absolute(text: str) -> str:
    """Return a path that does not depend on the working directory; a URL stays as it is.

    >>> absolute("s3://bucket/train.jsonl")
    's3://bucket/train.jsonl'
    """
    return text if "://" in text else str(Path.cwd() / local_path(text))
