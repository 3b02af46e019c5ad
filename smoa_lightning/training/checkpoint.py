"""Checkpoints as files: read one safely, tell what it is, and how its settings differ from today's."""

from __future__ import annotations

import hashlib
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import content, flat

logger = logging.getLogger(__name__)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this framework, with ``weights_only``.

    Raises:
        UserError: No such file, a damaged one, or one that something else wrote.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {str(path)!r}")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise UserError(f"the checkpoint {str(path)!r} is damaged: {str(error).splitlines()[0]}") from error
    if "config" not in checkpoint:
        raise UserError(f"the checkpoint {str(path)!r} was not written by smoa_lightning: it holds no configuration")
    return checkpoint


def file_digest(file: str | None) -> str | None:
    """Return the SHA-256 of a file, ``None`` if there is none."""
    if file is None or not Path(file).is_file():
        return None
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def log_differences(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Log each model or data setting in which this call differs from the checkpoint.

    Args:
        now: The resolved configuration of this call.
        then: The configuration in the checkpoint.
    """
    for section in ("model", "data"):
        new, old = flat(content(now)[section]), flat(then[section])
        for key in sorted(new.keys() | old.keys()):
            if new.get(key) != old.get(key):
                logger.info("differs from the checkpoint: %s.%s: %s -> %s", section, key, old.get(key), new.get(key))
