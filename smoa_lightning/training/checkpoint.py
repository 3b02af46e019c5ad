"""Checkpoint files: safe reading, digests, and differences to the current settings."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smoa_lightning.common.checksums import sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import near_place
from smoa_lightning.configuration.path_settings import absolute_sources
from smoa_lightning.records.record import content, flat
from smoa_lightning.training.run_checkpoints import FILES, checksums, damaged, previous_checkpoint

logger = logging.getLogger(__name__)

VERSION = re.compile(r"\d+(\.\d+)*(\.?(a|b|rc|dev|post)\d*)*(\+\w+(\.\w+)*)?")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this framework, with ``weights_only``.

    Raises:
        UserError: There is no such file, it is damaged, or a different program wrote it.
    """
    verify(path)
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError,
            AssertionError) as error:  # fmt: skip
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the checkpoint {str(path)!r} is damaged: {reason}") from error
    fault = _fault(checkpoint)
    if fault is not None:
        raise UserError(f"the checkpoint {str(path)!r} was not written by smoa_lightning: {fault}")
    content: dict[str, Any] = checkpoint
    return content


def _fault(content: Any) -> str | None:
    """Return why this package did not write the content of a checkpoint; ``None`` if it may have."""
    if not isinstance(content, dict):
        return f"it holds a value of type {type(content).__name__} instead of a mapping"
    config, tensors = content.get("config"), content.get("state_dict")
    if not isinstance(config, dict):
        return "it has no configuration"
    if not all(isinstance(config.get(section), dict) for section in ("model", "data")):
        return "its configuration has no settings of model and data"
    if not _is_plain(config) or not _is_plain(content.get("backbone", {})):
        return "its configuration holds other values than texts, numbers, lists and mappings"
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        return "it has no state_dict of tensors"
    if not isinstance(content.get("backbone", {}), dict):
        return "its backbone is no mapping"
    if not isinstance(content.get("global_step"), int):
        return "it has no global_step"
    version = content.get("pytorch-lightning_version")
    return None if VERSION.fullmatch(str(version)) else f"its version of Lightning is {version!r}"


def _is_plain(value: Any) -> bool:
    """Return whether a value is one that JSON has, as everything in a configuration is."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def verify(path: Path) -> None:
    """Compare a checkpoint with the checksums of its checkpoint folder, else with checksums inside the file.

    Raises:
        UserError: The file is missing or damaged.
    """
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else f"does not exist{near_place(path)}"
        raise UserError(f"the checkpoint {str(path)!r} {fault}")
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


def evaluated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a checkpoint that an evaluation takes.

    It changes no image, so it takes no augmentation, and imports no class that changes images.
    """
    data = {key: value for key, value in config.get("data", {}).items() if key != "augmentation"}
    return {**config, **({"data": data} if "data" in config else {})}


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
