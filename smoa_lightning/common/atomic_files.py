"""Write files and folders under a temporary name, then rename them, so that they are complete or absent."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smoa_lightning.common.leftovers import remove_leftovers, temporary_stem

CACHE = "SMOA_LIGHTNING_CACHE"


def cache_folder(kind: str) -> Path:
    """Return the folder for one kind of cached results, ``$SMOA_LIGHTNING_CACHE/<kind>`` or one in the user's cache."""
    if configured := os.environ.get(CACHE):
        return Path(configured).expanduser() / kind
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user_cache).expanduser() / "smoa_lightning" / kind


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name next to ``path``; on success, rename the file or folder written there to ``path``.

    A file is flushed to disk and then renamed in one step. An existing folder is moved aside first and removed last,
    so that one of the two folders is on disk at any moment. What killed processes left for ``path`` is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    stem = temporary_stem(path.name)
    temporary, previous = path.with_name(f"{stem}.tmp"), path.with_name(f"{stem}.old")
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
    """Write ``value`` as indented JSON; the file is complete or absent."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line; the file is complete or absent."""
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fsync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush all files and folders under a folder to disk."""
    for path in (*folder.rglob("*"), folder):
        fsync_folder(path)


def copy_linked(source: Path, target: Path, link: bool = True) -> None:
    """Copy a file or folder as hard links, or as copies without ``link`` or where the file system has no hard links."""

    def copy(old: str, new: str) -> str:
        if not link:
            return str(shutil.copy2(old, new))
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)
        return new

    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    if source.is_dir():
        shutil.copytree(source, target, copy_function=copy)
    else:
        copy(str(source), str(target))


def replace_link(link: Path, target: str) -> None:
    """Let a symbolic link lead to ``target``, in one step; a real file or folder of this name makes way for it."""
    if link.is_symlink() and os.readlink(link) == target:
        return
    temporary, previous = link.with_name(f".{link.name}.tmp"), link.with_name(f".{link.name}.old")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    if link.is_dir() and not link.is_symlink():
        link.rename(previous)
    temporary.replace(link)
    fsync_folder(link.parent)
    shutil.rmtree(previous, ignore_errors=True)


def is_leftover(path: Path) -> bool:
    """Return whether a killed process left this temporary file or folder."""
    return path.name.startswith(".") and path.suffix in (".tmp", ".old")
