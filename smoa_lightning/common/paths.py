"""Local paths as users write them: ``~`` is the home folder in every setting, flag and argument that is a path."""

from __future__ import annotations

from pathlib import Path

from smoa_lightning.common.errors import UserError


def local_path(text: str | Path) -> Path:
    """Return a path with the home folder in the place of ``~``; an unknown ``~user`` stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


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
