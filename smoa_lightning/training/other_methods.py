"""Methods that are neither of peft nor of this package: an allowed package that registers them is imported."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from smoa_lightning.common.allowed_classes import FLAG, added_packages
from smoa_lightning.common.errors import UserError


def register_method(folder: Path) -> None:
    """Import the allowed packages if peft does not know the method of an adapter folder.

    Args:
        folder: An adapter folder.

    Raises:
        UserError: A package cannot be imported, or the method is still unknown.
    """
    method = _method(folder)
    if method is None or method in PEFT_TYPE_TO_CONFIG_MAPPING:
        return
    for package in added_packages():
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"--{FLAG} {package}: the package cannot be imported: {error}") from None
    if method not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise UserError(
            f"the adapter in {folder} is of the method {method!r}, which peft does not know: name the package that "
            f"registers it, --{FLAG} PACKAGE, or import it first in Python"
        )


def _method(folder: Path) -> str | None:
    """Return the method in ``adapter_config.json``; ``None`` for a full model, or a file that its reader refuses."""
    try:
        content = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    method = content.get("peft_type") if isinstance(content, dict) else None
    return method if isinstance(method, str) else None
