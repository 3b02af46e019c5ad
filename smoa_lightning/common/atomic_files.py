"""Files and folders that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CACHE = "SMOA_LIGHTNING_CACHE"


def cache_folder(kind: str) -> Path:
    """Return the folder of one kind of kept results: ``$SMOA_LIGHTNING_CACHE/<kind>``, or that of the user's caches."""
    if own := os.environ.get(CACHE):
        return Path(own).expanduser() / kind
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(general).expanduser() / "smoa_lightning" / kind


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; on success the file or folder written there takes its place.

    A file is on disk before it takes its name, and replaced in one step. A folder's predecessor is moved aside first
    and removed last, so that one of the two is on disk at any moment. Machines that share the folder, among which
    process numbers are not unique, do not meet in one temporary name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}"
    temporary, previous = path.with_name(f"{own}.tmp"), path.with_name(f"{own}.old")
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
        if path.is_dir():
            path.rename(previous)
        try:
            temporary.replace(path)
        except OSError:
            if previous.is_dir():
                previous.rename(path)
            raise
    finally:
        shutil.rmtree(previous, ignore_errors=True)
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
