"""Checkpoint files: safe reading, digests, and differences to the current settings."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smoa_lightning.common.checksums import sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.path_settings import absolute_sources
from smoa_lightning.records.record import content, flat
from smoa_lightning.training.run_checkpoints import FILES, checksums, damaged, previous_checkpoint

logger = logging.getLogger(__name__)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this framework, with ``weights_only``.

    Raises:
        UserError: There is no such file, it is damaged, or a different program wrote it.
    """
    verify(path)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise UserError(f"the checkpoint {str(path)!r} is damaged: {str(error).splitlines()[0]}") from error
    if "config" not in checkpoint:
        raise UserError(f"the checkpoint {str(path)!r} was not written by smoa_lightning: it has no configuration")
    return checkpoint


def verify(path: Path) -> None:
    """Compare a checkpoint with the checksums of its checkpoint folder, else with checksums inside the file.

    Raises:
        UserError: The file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {str(path)!r}")
    real = path.resolve()
    if (real.parent / FILES).is_file():
        intact = checksums(real.parent).get(real.name) == sha256(real)
    else:
        intact = _is_whole_archive(real)
    if not intact:
        raise UserError(_about_damage(path))


def verify_all(point: Path) -> None:
    """Compare all files of the checkpoint folder of a resume point with their checksums.

    Raises:
        UserError: A file is missing or damaged. Found at the end of the run, it would cost the whole run.
    """
    verify(point)
    for name in damaged(point.parent) if (point.parent / FILES).is_file() else []:
        raise UserError(_about_damage(point.parent / name))


def _about_damage(path: Path) -> str:
    """Return a sentence about a damaged file of a checkpoint, with the intact file of another one."""
    fault = "is damaged: its checksum is wrong" if path.is_file() else "is missing"
    good = previous_checkpoint(path)
    remedy = "" if good is None else f"; the checkpoint before it is intact: {str(good)!r}"
    return f"the checkpoint {str(path)!r} {fault}{remedy}"


def _is_whole_archive(path: Path) -> bool:
    """Whether each record in a file of ``torch.save`` has its checksum; torch does not check this."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
        return False


def file_digest(file: str | None) -> str | None:
    """Return the SHA-256 of a file; ``None`` without a file."""
    if file is None or not Path(file).is_file():
        return None
    return sha256(Path(file))


def log_differences(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Log each model or data setting in which this call differs from the checkpoint.

    Args:
        now: The resolved configuration of this call.
        then: The configuration in the checkpoint.
    """
    for section in ("model", "data"):
        new, old = flat(content(absolute_sources(now))[section]), flat(absolute_sources(then)[section])
        for key in sorted(new.keys() | old.keys()):
            if new.get(key) != old.get(key):
                logger.info("differs from the checkpoint: %s.%s: %s -> %s", section, key, old.get(key), new.get(key))


def check_tensors(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Compare the tensors of a checkpoint with those that a module saves.

    Raises:
        UserError: Tensors are missing, unexpected or of a different shape.
    """
    missing, unexpected = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    if missing or unexpected:
        what = f"lacks {missing[0]!r}" if missing else f"has {unexpected[0]!r}, which the model does not have"
        raise UserError(
            f"the checkpoint is of a different strategy: it {what} "
            f"({len(missing)} tensors missing, {len(unexpected)} unexpected)"
        )
    for name, value in own.items():
        if value.shape != saved[name].shape:
            raise UserError(
                f"the checkpoint is of a different adapter shape: {name!r} is {tuple(saved[name].shape)} "
                f"there and {tuple(value.shape)} in this configuration"
            )
