"""All settings as a table of dotted keys, read from the shipped JSON Schema, without heavy imports.

``settings.schema.json`` is made from the real parser (``make schema``). It holds the settings of the commands, of all
strategies of peft and of this package, and of all optimizers of torch. It describes one version of each library. If a
different version is installed, that library's part of the schema serves for help only and refuses nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from smoa_lightning.common.errors import nearest
from smoa_lightning.configuration.ranges import LARGEST, RANGES
from smoa_lightning.configuration.value_type import Node, ValueType

SCHEMA_FILE = Path(__file__).with_name("settings.schema.json")
SUBCOMMANDS = ("fit", "validate", "test", "predict")
COMMANDS = (*SUBCOMMANDS, "params")  # the commands that take the settings
CLASS_SETTINGS = ("model.adapter", "model.prompt", "model.optimizer")  # a class path with the settings of that class
DEFAULT_CLASSES = {"model.optimizer": "torch.optim.AdamW"}
ABSENT = object()  # marks a setting without a default


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: Dotted key; settings of a class have keys under ``<owner>.init_args``.
        type: The values that it takes.
        default: Its default; ``ABSENT`` if there is none.
        help: Its meaning.
        within: For a field of a dataclass, the key of the setting that takes the dataclass; else empty.
        matches_schema: Whether the schema describes the installed version of its library.
    """

    key: str
    type: ValueType = field(hash=False, compare=False)
    default: Any = field(hash=False, compare=False)
    help: str
    within: str = ""
    matches_schema: bool = True


@dataclass(frozen=True)
class Group:
    """The settings of one class, under one name."""

    name: str
    title: str
    settings: tuple[Setting, ...]


@cache
def schema() -> Mapping[str, Any]:
    """Return the shipped schema."""
    content: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return content


@cache
def matches_schema(package: str) -> bool:
    """Whether the schema describes the installed version of a package; true for this package."""
    made_from = schema()["x-versions"].get(package)
    if made_from is None:
        return package == "smoa_lightning"
    try:
        return bool(importlib.metadata.version(package).partition("+")[0] == made_from)
    except importlib.metadata.PackageNotFoundError:
        return False


@cache
def groups(command: str) -> tuple[Group, ...]:
    """Return the groups of settings of a command: ``fit``, ``validate``, ``test``, ``predict`` or ``params``."""
    whole = schema()
    general = whole["x-commands"][command]
    result = [Group("", general["description"], _settings(general, "", True))]
    for name, node in whole["properties"].items():
        if "properties" in node:
            matches = name != "trainer" or matches_schema("lightning")
            result.append(Group(name, node["description"], _settings(node, f"{name}.", matches)))
    return tuple(result)


def class_path_of(owner: str, name: str) -> str | None:
    """Return the public path of a class, from its path or short name; ``None`` for an unknown class."""
    path: str | None = schema()["x-classes"][owner].get(name)
    return path


def class_paths(owner: str) -> list[str]:
    """Return the known public class paths of a class setting."""
    return list(dict.fromkeys(schema()["x-classes"][owner].values()))


@cache
def class_group(owner: str, class_path: str) -> Group | None:
    """Return the settings of a class under the key of its owner; ``None`` for an unknown class."""
    public = class_path_of(owner, class_path)
    if public is None:
        return None
    node = schema()["$defs"][public]
    settings = _settings(node, f"{owner}.init_args.", matches_schema(public.split(".")[0]))
    return Group(owner, f"{public}: {node['description']}", tuple(s for s in settings if not s.within))


@cache
def class_settings(owner: str, class_path: str) -> Mapping[str, Setting]:
    """Return full key -> setting of a class; empty for an unknown class."""
    group = class_group(owner, class_path)
    return {setting.key: setting for setting in group.settings} if group else {}


def options_of(class_path: str) -> list[str] | None:
    """Return the options of a sampler or pruner of Optuna; ``None`` if a different version is installed."""
    return list(schema()["x-options"][class_path]) if matches_schema("optuna") else None


def owner_of(key: str) -> str | None:
    """Return the class setting around a key, ``None`` for a key outside of class settings."""
    return next((name for name in CLASS_SETTINGS if key.startswith(f"{name}.")), None)


def wrong_value(setting: Setting, value: Any) -> str:
    """Return the message about a wrong value: what the setting takes, and the nearest listed value."""
    kind = setting.type
    listed = kind.values and not isinstance(value, list | dict)
    close = f"; the nearest is {nearest(str(value), kind.words(), 1)}" if listed else ""
    valid = RANGES.get(setting.key)
    valid = replace(valid, high=None) if valid is not None and valid.high == LARGEST else valid
    given = repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:200]}..."
    return f"{setting.key} is {given}, but takes {kind.describe(valid)}{close}"


def _settings(node: Node, prefix: str, matches: bool) -> tuple[Setting, ...]:
    result: list[Setting] = []
    required = node.get("required", ())
    for name, own in node["properties"].items():
        if name == "$schema":
            continue
        key = f"{prefix}{name}"
        setting = _setting(key, own, name in required, matches)
        result.append(setting)
        for field_name, inner in (setting.type.nested or {}).items():
            result.append(_setting(f"{key}.{field_name}", inner, False, matches, key))
    return tuple(result)


def _setting(key: str, node: Node, required: bool, matches: bool, within: str = "") -> Setting:
    kind = ValueType(node, schema()["$defs"])
    default = node.get("default", ABSENT if required else None)
    if key in DEFAULT_CLASSES:
        default = DEFAULT_CLASSES[key]
    return Setting(key, kind, default, node.get("description", ""), within, matches)
