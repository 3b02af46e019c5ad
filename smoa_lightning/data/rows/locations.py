"""Places of data files: local paths, and URLs of any file system of ``fsspec``."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fsspec.core import url_to_fs

from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import local_path

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK = 16_384

# The names of each split in a folder. The first name that exists is used.
SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
ALL_SPLIT_NAMES = frozenset(name for names in SPLIT_NAMES.values() for name in names)


def _zstandard(stream: BinaryIO) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(stream, "zstd")


COMPRESSIONS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstandard,
}


def is_url(place: str) -> bool:
    """Return whether a place is a URL; else it is a local path.

    >>> is_url("s3://bucket/train.jsonl"), is_url("rows/train.jsonl")
    (True, False)
    """
    return "://" in place


def file_system(place: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a place, and the path of the place in it.

    Raises:
        UserError: the file system is not installed.
    """
    try:
        fs, path = url_to_fs(plain(place))
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"data.path: no file system for {place} is installed ({reason}).") from error
    return fs, str(path)


def exists(place: str) -> bool:
    """Return whether there is a file or folder."""
    fs, path = file_system(place)
    return bool(fs.exists(path))


def is_folder(place: str) -> bool:
    """Return whether a place is a folder."""
    fs, path = file_system(place)
    return bool(fs.isdir(path))


def is_file(place: str) -> bool:
    """Return whether a place is a file."""
    fs, path = file_system(place)
    return bool(fs.isfile(path))


def check_regular(place: str) -> None:
    """Refuse a pipe or device in the place of a file: reading it may never end.

    Raises:
        UserError: the message has the path.
    """
    if not is_url(place):
        path = local_path(place)
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"data.path: {place} is not a regular file; write its rows to a file such as train.jsonl.")


def is_empty(place: str) -> bool:
    """Return whether a place is a file without bytes."""
    fs, path = file_system(place)
    return bool(fs.isfile(path) and fs.size(path) == 0)


def plain(place: str) -> str:
    """Return the name of a place in errors and records."""
    return place if is_url(place) else str(local_path(place))


def joined(folder: str, name: str) -> str:
    """Return the place of a file or folder in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(local_path(folder) / name)


def entries(folder: str) -> dict[str, bool]:
    """Return the names in a folder, and whether each is a folder itself."""
    fs, path = file_system(folder)
    found = fs.ls(path, detail=True)
    return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["type"] == "directory" for entry in found}


def matches(pattern: str) -> list[str]:
    """Return the places that match a pattern with ``*``, ``?`` or ``[]``."""
    fs, path = file_system(pattern)
    found = [str(place) for place in fs.glob(path)]
    return [fs.unstrip_protocol(place) for place in found] if is_url(pattern) else found


@contextlib.contextmanager
def opened(place: str, ending: str = "") -> Iterator[io.BufferedReader]:
    """Open the bytes of a file, decompressed if ``ending`` is that of a compression, such as ``.gz``."""
    fs, path = file_system(place)
    with contextlib.ExitStack() as stack:
        stream: Any = stack.enter_context(fs.open(path, "rb") if is_url(place) else io.FileIO(path))
        if ending in COMPRESSIONS:
            stream = stack.enter_context(COMPRESSIONS[ending](stream))
        yield stack.enter_context(io.BufferedReader(stream, 1 << 20))


def identity(place: str) -> list[Any] | None:
    """Return a value that changes when a file changes, without reading the whole file.

    For a local file: path, size, time of the last change, and a digest of its start, its end and 62 places between
    them. For a URL: what its file system reports, None if it reports no version. For a folder: the list for its files.

    Raises:
        UserError: it cannot be read.
    """
    fs, path = file_system(place)
    if fs.isdir(path):
        files = [identity(joined(place, name)) for name in sorted(entries(place))]
        return None if None in files else files
    info = fs.info(path)
    if not is_url(place):
        try:
            status = Path(path).stat()
            return [str(Path(path).resolve()), status.st_size, status.st_mtime_ns, _sample(Path(path), status.st_size)]
        except OSError as error:
            raise UserError(f"{place}: cannot be read ({error.strerror or error}).") from error
    version = {name: str(info[name]) for name in ("mtime", "created", "ETag", "LastModified", "md5") if info.get(name)}
    return [place, info["size"], version] if version else None


def _sample(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for part in range(64):
            stream.seek(max(0, size - BLOCK) * part // 63)
            digest.update(stream.read(BLOCK))
    return digest.hexdigest()
