"""Classes of the user. The schema does not describe them: they are imported, and their constructor is read."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from smoa_lightning.common.allowed_classes import TRUSTED
from smoa_lightning.common.errors import UserError, the_nearest
from smoa_lightning.common.fast_imports import import_command
from smoa_lightning.configuration.key_names import near_keys
from smoa_lightning.configuration.settings import ABSENT, Setting, schema, wrong_value
from smoa_lightning.configuration.value_type import Node, ValueType

BASES = {  # setting -> the class that its classes are derived from
    "model.adapter": "peft.PeftConfig",
    "model.prompt": "peft.PeftConfig",
    "model.optimizer": "torch.optim.Optimizer",
    "trainer.callbacks": "lightning.pytorch.Callback",
}
PLAIN = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}
FILES = (".yaml", ".yml", ".json")  # the parser takes a file in the place of a class
ARRAYS = (list, tuple, set)


def own_settings(owner: str, class_path: str, where: str = "") -> Mapping[str, Setting] | None:
    """Import a class of the user and return its settings.

    Args:
        owner: The setting that takes the class.
        class_path: Its path.
        where: Start of a message: file and line.

    Returns:
        Full key -> setting; ``None`` for a class of a library that this package uses, which is not imported.

    Raises:
        UserError: The class cannot be imported, or the setting does not take it.
    """
    top, *rest = class_path.split(".")
    if not rest or top in (*TRUSTED, *sys.stdlib_module_names) or class_path.endswith(FILES):
        return None
    from jsonargparse._parameter_resolvers import get_signature_parameters  # there is no public one

    from smoa_lightning.configuration.import_policy import import_class

    if top not in sys.modules and top.isidentifier() and importlib.util.find_spec(top) is not None:
        import_command("lightning.pytorch.cli")  # faster than a plain import in the class's module
    found = import_class(class_path, f"{where}{owner}", {})
    base = BASES.get(owner)
    if base is not None and base.rpartition(".")[2] not in (each.__name__ for each in found.__mro__):
        raise UserError(f"{where}{owner}: {class_path!r} is not a class for it; it takes classes derived from {base}")
    parameters = get_signature_parameters(found)[1 if owner == "model.optimizer" else 0 :]  # without the weights
    keys = {each.name: f"{owner}.init_args.{each.name}" for each in parameters}
    return {
        keys[each.name]: Setting(
            keys[each.name],
            ValueType(_type(each), {}),
            ABSENT if each.default is inspect.Parameter.empty else each.default,
            "",
        )
        for each in parameters
    }


def check_mappings(key: str, value: Any, where: str = "") -> None:
    """Check the classes of the user in a setting of the trainer, such as its callbacks.

    Args:
        key: The setting.
        value: A class path, a mapping with ``class_path``, or a list of both.
        where: Start of a message: file and line.

    Raises:
        UserError: A class cannot be imported, or does not take a setting or its value.
    """
    for each in (value if isinstance(value, list) else [value]) if key in schema()["x-class-names"] else ():
        each = {"class_path": each} if isinstance(each, str) else each
        class_path = each.get("class_path") if isinstance(each, Mapping) else None
        if not isinstance(class_path, str) or (accepted := own_settings(key, class_path, where)) is None:
            continue
        arguments = each.get("init_args") or {}
        if not isinstance(arguments, Mapping):
            raise UserError(
                f"{where}init_args of {class_path} is {arguments!r}, but must be a mapping: names and values"
            )
        for name, given in arguments.items():
            setting = accepted.get(f"{key}.init_args.{name}")
            if setting is None:
                raise unknown_argument(f"{key}.{name}", class_path, accepted, where)
            if not setting.type.accepts(given):
                raise UserError(f"{where}{wrong_value(setting, given)}")


def unknown_argument(key: str, class_path: str, accepted: Mapping[str, Setting], where: str = "") -> UserError:
    """Return the error about a setting that a class does not have, with the nearest settings that it has."""
    known = [each.replace(".init_args.", ".") for each in accepted]
    close = f"; {the_nearest(', '.join(near_keys(key, known)), 'key')}" if known else ", which has no settings"
    return UserError(f"{where}unknown key {key!r} of {class_path}{close}")


def _type(parameter: Any) -> Node:
    """Return the type of an argument; one whose default is ``None`` also takes null, as the full parser allows."""
    node = _node(parameter.annotation)
    return {"anyOf": [node, {"type": "null"}]} if node and parameter.default is None else node


def _node(annotation: Any) -> Node:
    """Return the type of an argument as a node of JSON Schema; what is not listed here takes any value."""
    origin = get_origin(annotation)
    if annotation in (*PLAIN, None):
        return {"type": PLAIN[annotation or type(None)]}
    if origin is Literal:
        return {"enum": list(get_args(annotation))}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_node(each) for each in get_args(annotation)]}
    if annotation in ARRAYS or origin in ARRAYS:
        return {"type": "array"}
    return {"type": "object"} if annotation is dict or origin is dict else {}
