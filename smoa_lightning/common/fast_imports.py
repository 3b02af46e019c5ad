"""Import the libraries of a run without work that runs do not need.

Plain imports took ten CPU seconds of one core (torch 2.13, lightning 2.6, torchmetrics 1.9, peft 0.21, with
bitsandbytes and scipy installed). Five of these seconds are avoidable:

* The garbage collector scans a million young objects, and all of them stay.
* bitsandbytes decorates four functions with ``torch.compile``. That loads torch's inductor, although only backbones in
  8 or 4 bits call these functions.
* torchmetrics imports ``scipy.signal`` for an alias of a window function, and matplotlib for plots.
* transformers imports ``scipy.optimize`` for the losses of object detection.
* transformers 5 reads the 1,700 files of its models twice, since it keeps the answers for 128 of 548 folders.

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

SIGNAL, OPTIMIZE, PLOT = "scipy.signal", "scipy.optimize", "torchmetrics.utilities.plot"
FOLDER_READER = "create_import_structure_from_path"  # the function of transformers that reads the files of a folder


def import_command(name: str) -> ModuleType:
    """Import the module of a command that needs torch, lightning, transformers and peft."""
    if "peft" in sys.modules:
        return importlib.import_module(name)
    with without_collection():
        import torch

        with folders_read_once():
            importlib.import_module("transformers")
        with deferred_imports():
            importlib.import_module("torchmetrics")
        with deferred_imports(OPTIMIZE), contextlib.suppress(ImportError):
            importlib.import_module("transformers.loss.loss_utils")  # alone: libraries below it need scipy.optimize
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


def _optimize(name: str) -> Any:
    """Supply the one function that losses of transformers name; it is loaded when it is called."""
    if name != "linear_sum_assignment":
        return None
    return lambda *args, **kwargs: importlib.import_module(OPTIMIZE).linear_sum_assignment(*args, **kwargs)


def _plot(name: str) -> Any:
    """Supply types for annotations, and functions that load the module when they are called."""
    if name.endswith("_TYPE"):
        return object

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(PLOT), name)(*args, **kwargs)

    return call if name.startswith("plot_") else None


_SUPPLIES = {SIGNAL: _signal, OPTIMIZE: _optimize, PLOT: _plot}


@contextlib.contextmanager
def deferred_imports(*names: str) -> Iterator[None]:
    """Replace modules while a library is imported.

    Args:
        names: The modules; by default what torchmetrics imports: ``scipy.signal`` and its own plots (matplotlib).
    """
    placeholders = {
        name: _DeferredModule(name, _SUPPLIES[name])
        for name in names or (SIGNAL, PLOT)
        if name not in sys.modules and importlib.util.find_spec(name.split(".")[0]) is not None
    }
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name, module in placeholders.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


@contextlib.contextmanager
def folders_read_once() -> Iterator[None]:
    """Let transformers remember the contents of all its folders of models, not of the last 128.

    It lists them for ``transformers`` and again for ``transformers.models``. Its memory is a plain ``lru_cache``.
    """
    plain: Any = functools.lru_cache

    def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
        if getattr(maxsize, "__name__", None) == FOLDER_READER:  # the decorator without arguments
            return plain(None, typed)(maxsize)
        return plain(maxsize, typed)

    functools.lru_cache = lru_cache
    try:
        yield
    finally:
        functools.lru_cache = plain
