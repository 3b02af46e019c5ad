"""Import the libraries of a run without work that runs do not need.

Plain imports took ten CPU seconds of one core (torch 2.13, lightning 2.6, torchmetrics 1.9, peft 0.21, with
bitsandbytes and scipy installed). Four of these seconds are avoidable:

* The garbage collector scans a million young objects, and all of them stay.
* bitsandbytes decorates four functions with ``torch.compile``. That loads torch's inductor, although only backbones in
  8 or 4 bits call these functions.
* torchmetrics imports ``scipy.signal`` for an alias of a window function, and matplotlib for plots.

Nothing is removed: the delayed work happens at first use.
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

        with deferred_imports():
            importlib.import_module("torchmetrics")
        with deferred_compile(torch):
            importlib.import_module("peft")
        return importlib.import_module(name)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Pause the garbage collector, and exclude the objects of the block from its later passes."""
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
def deferred_compile(torch: Any) -> Iterator[None]:
    """Let ``torch.compile`` load the compiler at the first call of the compiled function."""
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


class _DeferredModule(ModuleType):
    """A placeholder for a module: it supplies some names itself and loads the module for all others."""

    def __init__(self, name: str, supply: Callable[[str], Any]) -> None:
        super().__init__(name)
        self.__dict__["_supply"] = supply

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for its own attributes
            raise AttributeError(name)
        value = self.__dict__["_supply"](name)
        return getattr(self._load(), name) if value is None else value

    def _load(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


def _signal(name: str) -> Any:
    return len if name == "hamming" else None  # torchmetrics only checks that it exists


def _plot(name: str) -> Any:
    """Supply types for annotations, and functions that load the module when they are called."""
    if name.endswith("_TYPE"):
        return object

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(PLOT), name)(*args, **kwargs)

    return call if name.startswith("plot_") else None


@contextlib.contextmanager
def deferred_imports() -> Iterator[None]:
    """Replace ``scipy.signal`` and torchmetrics' plots (matplotlib) while torchmetrics is imported."""
    supplies = {SIGNAL: _signal, PLOT: _plot}
    absent = {name for name in supplies if importlib.util.find_spec(name.split(".")[0]) is None}
    placeholders = {
        name: _DeferredModule(name, supply)
        for name, supply in supplies.items()
        if name not in absent | sys.modules.keys()
    }
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name, module in placeholders.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
