"""Register the methods of this package with peft as soon as both are imported, without importing peft early.

The methods import everything below them, so nothing below them imports peft at its top: the registration would find it
incomplete (tests/test_imports.py).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

METHODS = "smoa_lightning.adapters"  # importing it registers the methods


class _Registering(Loader):
    """The loader of peft, which registers the methods when peft is complete."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        remove_finder()
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader  # what a plain import leaves
        self._loader.exec_module(module)
        importlib.import_module(METHODS)


class _PeftFinder(MetaPathFinder):
    """Finds peft, with a loader that registers the methods.

    It stays until peft is imported: transformers looks for peft's spec long before somebody imports it.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "peft":
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


def remove_finder() -> None:
    """Remove the finder from Python's import system."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _PeftFinder)]


def register_with_peft() -> None:
    """Register the methods now if peft is imported, else right after its import."""
    if "peft" in sys.modules:
        importlib.import_module(METHODS)
    elif not any(isinstance(finder, _PeftFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PeftFinder())
