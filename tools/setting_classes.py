"""The classes that settings may name: strategies, prompt methods, optimizers, and those of Lightning."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

import peft
import torch

import smoa_lightning.adapters.adalora
from smoa_lightning.common.allowed_classes import TRUSTED

# Setting -> the packages in which a class that it takes can be.
CLASS_PACKAGES = {
    "model.optimizer": ("torch.optim", "torch.distributed.optim", "peft.optimizers", "transformers.optimization"),
    "trainer.accelerator": ("lightning.pytorch.accelerators",),
    "trainer.callbacks": ("lightning.pytorch.callbacks", "smoa_lightning.training.callbacks"),
    "trainer.logger": ("lightning.pytorch.loggers", "smoa_lightning.training.run_logger"),
    "trainer.plugins": ("lightning.pytorch.plugins", "lightning.fabric.plugins"),
    "trainer.profiler": ("lightning.pytorch.profilers",),
    "trainer.strategy": ("lightning.pytorch.strategies",),
}


def strategies() -> dict[str, type]:
    """Return public class path -> class of every strategy, ours before peft's."""
    classes: dict[str, type] = {}
    for module in (smoa_lightning.adapters, smoa_lightning.adapters.adalora, peft):
        for name, member in sorted(vars(module).items()):
            if inspect.isclass(member) and issubclass(member, peft.PeftConfig) and not name.startswith("_"):
                classes.setdefault(f"{module.__name__}.{name}", member)
    return classes


def prompts() -> dict[str, type]:
    """Return the same for the prompt methods that are trained together with an adapter of weights."""
    methods = (peft.PromptTuningConfig, peft.PromptEncoderConfig, peft.PrefixTuningConfig)
    return {f"peft.{method.__name__}": method for method in methods}


def optimizers() -> dict[str, type]:
    """Return class path -> class of every optimizer of torch."""
    return {
        f"torch.optim.{name}": member
        for name, member in sorted(vars(torch.optim).items())
        if inspect.isclass(member) and issubclass(member, torch.optim.Optimizer) and member is not torch.optim.Optimizer
    }


def class_names(parser: Any) -> dict[str, list[str]]:
    """Return setting -> the paths of all classes in the packages of ``CLASS_PACKAGES`` that the setting takes."""
    result = {}
    for key, packages in CLASS_PACKAGES.items():
        base = (torch.optim.Optimizer,) if key == "model.optimizer" else _classes_of(parser, key)
        found: set[str] = set()
        for package in packages:
            for module in _modules(importlib.import_module(package)):
                for member in vars(module).values():
                    if inspect.isclass(member) and issubclass(member, base):
                        found |= set(_paths(member))
                        found |= {f"{module.__name__}.{member.__name__}"} if hasattr(module, "__path__") else set()
        result[key] = sorted(name for name in found if name.split(".")[0] in TRUSTED)
    return result


def _classes_of(parser: Any, key: str) -> tuple[type, ...]:
    """Return the classes that a setting takes, from its type."""
    kinds, found = [next(action for action in parser._actions if action.dest == key)._typehint], []
    for kind in kinds:
        kinds += getattr(kind, "__args__", ())
        if inspect.isclass(kind) and kind.__module__.split(".")[0] == "lightning":
            found.append(kind)
    return tuple(found)


def _modules(package: Any) -> Iterator[Any]:
    """Yield a package and its modules that can be imported."""
    yield package
    for found in pkgutil.walk_packages(getattr(package, "__path__", []), f"{package.__name__}."):
        module = None
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(found.name)  # fails for a library that is absent
        if module is not None:
            yield module


def _paths(member: type) -> Iterator[str]:
    """Yield the path of a class by the module that defines it, and through the packages around it."""
    yield f"{member.__module__}.{member.__qualname__}"
    yield from shorter_paths(member)


def shorter_paths(member: type) -> Iterator[str]:
    """Yield the shorter class paths of a class that the parser takes, through the packages around it."""
    package = member.__module__
    while package := package.rpartition(".")[0]:
        if getattr(importlib.import_module(package), member.__name__, None) is member:
            yield f"{package}.{member.__name__}"
