"""Checksums that show whether a file on disk is still the file that was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoa_lightning.common.atomic_files import write_json
from smoa_lightning.common.errors import UserError

SEAL = "digest"  # key of the checksum in a sealed JSON object


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksums_in(folder: Path, *names: str) -> dict[str, str]:
    """Return name -> SHA-256 of those files that are in a folder."""
    return {name: sha256(folder / name) for name in names if (folder / name).is_file()}


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON-safe object with the checksum of its other entries.

    >>> sealed({"step": 3})["digest"] == sealed({"step": 4})["digest"]
    False
    """
    rest = {key: value for key, value in content.items() if key != SEAL}
    text = json.dumps(json.loads(json.dumps(rest, default=str)), sort_keys=True)
    return rest | {SEAL: hashlib.sha256(text.encode()).hexdigest()}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Return whether an object equals what was sealed. An object of an earlier version has no seal: it passes."""
    return SEAL not in content or sealed(content)[SEAL] == content[SEAL]


def write_sealed(file: Path, content: Mapping[str, Any]) -> None:
    """Write an object with its checksum as JSON; the file is complete or absent."""
    write_json(file, sealed(content))


def read_sealed(file: Path, remedy: str = "restore the file") -> dict[str, Any] | None:
    """Return the object of a file from ``write_sealed``, without its checksum; ``None`` without a file.

    Raises:
        UserError: The file is damaged or was changed.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        if not is_intact(content):
            raise ValueError("its checksum is wrong")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}): {remedy}") from error
    return {key: value for key, value in content.items() if key != SEAL}
