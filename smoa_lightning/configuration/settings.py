"""All settings as a table of dotted keys, read from the shipped JSON Schema. Nothing heavy is imported.

``settings.schema.json`` is made from the real parser (``make schema``). It holds the settings of the commands, of every
strategy of peft and of this package, and of every optimizer of torch, for one version of each library. Where another
version of a library is installed, its part of the schema is a help text only: nothing is refused because of it.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from smoa_lightning.configuration.value_type import Node, ValueType

SCHEMA_FILE = Path(__file__).with_name("settings.schema.json")
SUBCOMMANDS = ("fit", "validate", "test", "predict")
COMMANDS = (*SUBCOMMANDS, "params")  # those that take the settings
CLASS_SETTINGS = ("model.adapter", "model.optimizer")  # a class path with the settings of that class
DEFAULT_CLASSES = {"model.optimizer": "torch.optim.AdamW"}
ABSENT = object()  # the default of a setting that has none


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: Dotted key; settings of a class stand under ``<owner>.init_args``.
        type: What it takes.
        default: Its default; ``ABSENT`` where there is none.
        help: What it means.
        within: Key of the setting whose dataclass it is a field of, empty otherwise.
        certain: Whether the installed library is the one that the schema was made from.
    """

    key: str
    type: ValueType = field(hash=False, compare=False)
    default: Any = field(hash=False, compare=False)
    help: str
    within: str = ""
    certain: bool = True


@dataclass(frozen=True)
class Group:
    """Settings under one name, as a class takes them."""

    name: str
    title: str
    settings: tuple[Setting, ...]


@cache
def schema() -> Mapping[str, Any]:
    """Return the shipped schema."""
    content: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return content


@cache
def certain(package: str) -> bool:
    """Whether a package is installed in the version that the schema was made from; true for this package."""
    made_from = schema()["x-versions"].get(package)
    if made_from is None:
        return package == "smoa_lightning"
    try:
        return importlib.metadata.version(package).partition("+")[0] == made_from
    except importlib.metadata.PackageNotFoundError:
        return False


@cache
def groups(command: str) -> tuple[Group, ...]:
    """Return the groups of settings of a command: ``fit``, ``validate``, ``test``, ``predict`` or ``params``."""
    whole = schema()
    general = whole["x-commands"][command]
    found = [Group("", general["description"], _settings(general, "", True))]
    for name, node in whole["properties"].items():
        if "properties" in node:
            known = name != "trainer" or certain("lightning")
            found.append(Group(name, node["description"], _settings(node, f"{name}.", known)))
    return tuple(found)


def class_path_of(owner: str, name: str) -> str | None:
    """Return the public path of a class, which may be given by its short name; ``None`` for one that is not known."""
    path: str | None = schema()["x-classes"][owner].get(name)
    return path


def class_paths(owner: str) -> list[str]:
    """Return the public class paths that are known under a key."""
    return list(dict.fromkeys(schema()["x-classes"][owner].values()))


@cache
def class_group(owner: str, class_path: str) -> Group | None:
    """Return the settings of a class under the key that takes its class path; ``None`` if they are not known."""
    public = class_path_of(owner, class_path)
    if public is None:
        return None
    node = schema()["$defs"][public]
    settings = _settings(node, f"{owner}.init_args.", certain(public.split(".")[0]))
    return Group(owner, f"{public}: {node['description']}", tuple(s for s in settings if not s.within))


@cache
def class_settings(owner: str, class_path: str) -> Mapping[str, Setting]:
    """Return full key -> setting of a class; nothing where its settings are not known."""
    group = class_group(owner, class_path)
    return {setting.key: setting for setting in group.settings} if group else {}


def options_of(class_path: str) -> list[str] | None:
    """Return the options of a sampler or pruner of Optuna; ``None`` where another version is installed."""
    return list(schema()["x-options"][class_path]) if certain("optuna") else None


def owner_of(key: str) -> str | None:
    """Return the class setting that a key lies within, ``None`` for any other key."""
    return next((name for name in CLASS_SETTINGS if key.startswith(f"{name}.")), None)


def _settings(node: Node, prefix: str, known: bool) -> tuple[Setting, ...]:
    found: list[Setting] = []
    required = node.get("required", ())
    for name, own in node["properties"].items():
        if name == "$schema":
            continue
        key = f"{prefix}{name}"
        setting = _setting(key, own, name in required, known)
        found.append(setting)
        for field_name, inner in (setting.type.nested or {}).items():
            found.append(_setting(f"{key}.{field_name}", inner, False, known, key))
    return tuple(found)


def _setting(key: str, node: Node, required: bool, known: bool, within: str = "") -> Setting:
    kind = ValueType(node, schema()["$defs"])
    default = node.get("default", ABSENT if required else None)
    if key in DEFAULT_CLASSES:
        default = DEFAULT_CLASSES[key]
    return Setting(key, kind, default, node.get("description", ""), within, known)
