"""Shared by all our own tuners: targets and checks of a config, containers of a layer, injection, registration."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from smoa_lightning.adapters.tuner.bound import BoundLayer
from smoa_lightning.adapters.tuner.config import TunerConfig
from smoa_lightning.adapters.tuner.frozen import linear_shape
from smoa_lightning.adapters.tuner.layer import AdapterLayer
from smoa_lightning.adapters.tuner.model import AdapterModel
from smoa_lightning.adapters.tuner.other_layers import frozen_weight, update_shape
from smoa_lightning.adapters.tuner.patterns import PatternConfig
from smoa_lightning.adapters.tuner.slot import SlotLayer
from smoa_lightning.adapters.tuner.update import UpdateLayer
from smoa_lightning.common.errors import UserError


def register(peft_type: Enum, config: type[TunerConfig], model: type[AdapterModel]) -> None:
    """Register a method with peft under the single member of its type enum.

    ``peft.register_peft_method`` only fills these dictionaries, but refuses members that are not in peft's own enum.
    """
    PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = config  # type: ignore[index]
    PEFT_TYPE_TO_TUNER_MAPPING[peft_type] = model  # type: ignore[index]
    PEFT_TYPE_TO_PREFIX_MAPPING[peft_type] = model.prefix  # type: ignore[index]


def register_method(name: str, config: type[TunerConfig], layer: type[AdapterLayer]) -> None:
    """Register a method that adapts every target module with the same class of layer.

    The method gets a type enum, ``config.Type``, which every config has as its type, and a model, ``layer.Model``.

    Args:
        name: Name of the method in ``adapter_config.json``, in capital letters.
        config: Class of its settings.
        layer: Class of its layers. The names of its parameters and frozen state begin with the name of the method in
            small letters and ``_``.

    Raises:
        UserError: The name has small letters or is that of another method, a method of the layer is missing, or a name
            of the layer begins differently, so that peft would not save it.
    """
    if name != name.upper():
        raise UserError(f"register_method: the name {name!r} must be in capital letters: {name.upper()!r}")
    known = PEFT_TYPE_TO_CONFIG_MAPPING.get(name)  # type: ignore[call-overload]
    if known is not None and _path(known) != _path(config):  # a notebook may define its class again
        raise UserError(f"register_method: {name!r} is the name of the method of {_path(known)}: choose another name")
    _require_complete(layer)
    prefix = f"{name.lower()}_"
    for container in (*layer.adapter_layer_names, *layer.frozen_state):
        if not container.startswith(prefix):
            raise UserError(f"{layer.__name__}: the name {container!r} must begin with {prefix!r}")

    def place(owner: type, attribute: str) -> dict[str, str]:
        """Return where pickle finds a class."""
        return {"module": owner.__module__, "qualname": f"{owner.__qualname__}.{attribute}"}

    make_enum: Any = Enum  # mypy knows only literal names
    config.Type = make_enum("Type", {name: name}, type=str, **place(config, "Type"))
    where = place(layer, "Model")
    names = {"prefix": prefix, "tuner_layer_cls": layer, "layer_class": layer, "__doc__": AdapterModel.__doc__}
    layer.Model = type("Model", (AdapterModel,), names | {f"__{key}__": value for key, value in where.items()})
    register(config.Type[name], config, layer.Model)


def _require_complete(layer: type[AdapterLayer]) -> None:
    """Refuse a class of layers that lacks a part which every method must supply."""
    needless = {"product"} if _is_written(layer, "adapted_forward") or _is_written(layer, "forward") else set()
    for name in layer.supplied:
        if name not in needless and not _is_written(layer, name):
            meaning = str(inspect.getdoc(getattr(layer, name))).split("\n")[0].removeprefix("Return ").rstrip(".")
            raise UserError(
                f"{layer.__name__} has no method {name}, which every {_kind(layer)} needs: it returns {meaning}"
            )
    if not layer.adapter_layer_names:
        raise UserError(f"{layer.__name__}.adapter_layer_names is empty: list the names of its trained tensors there")


def _is_written(layer: type, name: str) -> bool:
    """Whether a class has a method of its own in the place of the one of the base classes here."""
    module = str(getattr(getattr(layer, name, None), "__module__", ""))
    return hasattr(layer, name) and not module.startswith(f"{__name__}.")


def _kind(layer: type) -> str:
    """Return the name of the base class here."""
    return next(each.__name__ for each in layer.__mro__ if each.__module__.startswith(f"{__name__}."))


def _path(cls: type) -> str:
    """Return the full name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


__all__ = [
    "AdapterLayer",
    "AdapterModel",
    "BoundLayer",
    "PatternConfig",
    "SlotLayer",
    "TunerConfig",
    "UpdateLayer",
    "frozen_weight",
    "linear_shape",
    "register",
    "register_method",
    "update_shape",
]
