"""Import the libraries of a run without the work that they do on import for things that no run here uses.

Measured before the first step (CPU seconds of one core, torch 2.13, lightning 2.6, torchmetrics 1.9, peft 0.21, with
bitsandbytes and scipy installed): ten for imports, of which four went

* to the garbage collector, which walks through a million young objects that all stay;
* to torch's inductor, because bitsandbytes decorates four functions with ``torch.compile``, which loads the compiler
  although none of them is called unless a backbone is held in 8 or 4 bits;
* to ``scipy.signal`` and matplotlib, which torchmetrics imports to add an alias of a window function, and for plots.

Nothing is hidden or replaced for good: what is put off happens when it is first used.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

SIGNAL, PLOT = "scipy.signal", "torchmetrics.utilities.plot"


def import_command(name: str) -> ModuleType:
    """Import the module of a command that needs torch, lightning, transformers and peft."""
    if "peft" in sys.modules:
        return importlib.import_module(name)
    with without_collection():
        import torch

        with loaded_later():
            importlib.import_module("torchmetrics")
        with compiling_later(torch):
            importlib.import_module("peft")
        return importlib.import_module(name)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Leave the garbage collector out, and what was made in the meantime out of its later passes."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def compiling_later(torch: Any) -> Iterator[None]:
    """Let ``torch.compile`` of a function load the compiler when that function is first called."""
    compile_now: Callable[..., Any] = torch.compile

    @functools.wraps(compile_now)
    def compile_later(model: Any = None, **options: Any) -> Any:
        if model is None:
            return functools.partial(compile_later, **options)
        if isinstance(model, torch.nn.Module):
            return compile_now(model, **options)
        compiled: list[Any] = []

        @functools.wraps(model)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not compiled:
                compiled.append(compile_now(model, **options))
            return compiled[0](*args, **kwargs)

        return call

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now


class _Later(ModuleType):
    """Stands in for a module while another one is imported: gives some names at once, loads the module for the rest."""

    def __init__(self, name: str, at_once: Callable[[str], Any]) -> None:
        super().__init__(name)
        self.__dict__["_at_once"] = at_once

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for its own marks
            raise AttributeError(name)
        found = self.__dict__["_at_once"](name)
        return getattr(self._load(), name) if found is None else found

    def _load(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


def _signal(name: str) -> Any:
    return len if name == "hamming" else None  # torchmetrics only asks whether it is there


def _plot(name: str) -> Any:
    """Types that only annotate, and functions that load the module when they are called."""
    if name.endswith("_TYPE"):
        return object

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(PLOT), name)(*args, **kwargs)

    return call if name.startswith("plot_") else None


@contextlib.contextmanager
def loaded_later() -> Iterator[None]:
    """Stand in for ``scipy.signal`` and for torchmetrics' plots (matplotlib) while torchmetrics is imported."""
    wanted = {SIGNAL: _signal, PLOT: _plot}
    absent = {name for name in wanted if importlib.util.find_spec(name.split(".")[0]) is None}
    standing = {
        name: _Later(name, at_once) for name, at_once in wanted.items() if name not in absent | sys.modules.keys()
    }
    sys.modules.update(standing)
    try:
        yield
    finally:
        for name, module in standing.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
