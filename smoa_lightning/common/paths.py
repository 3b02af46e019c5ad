"""Local paths as users write them: ``~`` is the home folder in every setting, flag and argument that is a path."""

from __future__ import annotations

from pathlib import Path


def local_path(text: str | Path) -> Path:
    """Return a path with the home folder in the place of ``~``; an unknown ``~user`` stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def absolute(text: str) -> str:
    """Return a path that does not depend on the working directory; a URL stays as it is.

    >>> absolute("s3://bucket/train.jsonl")
    's3://bucket/train.jsonl'
    """
    return text if "://" in text else str(Path.cwd() / local_path(text))
