"""Checksums that show whether a file on disk is still the file that was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "digest"  # key of the checksum in a sealed JSON object


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
