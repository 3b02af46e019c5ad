"""Compose configuration files and flags as the real parser does, without importing the classes that they name.

The early check, the help text and the cells of a study use it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import local_path
from smoa_lightning.configuration.settings import (
    ABSENT,
    CLASS_SETTINGS,
    DEFAULT_CLASSES,
    Setting,
    class_settings,
    groups,
    owner_of,
)
from smoa_lightning.configuration.yaml_files import LocatedYaml, Steps, expand_bases, read_yaml
from smoa_lightning.records.record import content, signature

Settings = dict[str, Any]


class Leaf(NamedTuple):
    """A setting and its value in a file or flag.

    Attributes:
        key: Full key, such as ``model.adapter.init_args.r``; ``model.adapter`` for the class path.
        value: Its value. A group is a leaf only if it is empty or not a mapping.
        steps: Keys that lead to it in the file.
        append: Whether the key ends with ``+``: the value is appended to a list.
    """

    key: str
    value: Any
    steps: Steps = ()
    append: bool = False


@cache
def plain_settings() -> Mapping[str, Setting]:
    """Return full key -> setting, without the settings of classes."""
    return {s.key: s for group in groups("fit") for s in group.settings}


def setting_of(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key in composed settings, which hold no defaults, or its default."""
    value = value_at(settings, key)
    return plain_settings()[key].default if value is ABSENT else value


@cache
def mappings() -> frozenset[str]:
    """Return the keys whose values hold settings: groups, and settings that take a dataclass."""
    nested = {key for key, setting in plain_settings().items() if setting.type.nested is not None}
    return frozenset(nested | group_names())


@cache
def group_names() -> frozenset[str]:
    """Return the names of the groups of settings, such as ``model`` and ``trainer``."""
    return frozenset(group.name for group in groups("fit") if group.name)


def refuse_no_group(leaf: Leaf, where: str) -> None:
    """Refuse a group of settings in a file that is empty, a value or a list: the parser would forget the whole group.

    Raises:
        UserError: It is one. A text names a file with the settings of the group.
    """
    if leaf.key in group_names() and not isinstance(leaf.value, str | Mapping):
        fault = "is empty" if leaf.value is None else f"is {leaf.value!r}"
        raise UserError(
            f"{where}{leaf.key} {fault}, but is a group of settings: write each of them as 'key: value' in an indented "
            "line below it, or remove the line"
        )


# --------------------------------------------------------------------------------------------- from mappings to leaves


def leaves(value: Mapping[str, Any], prefix: str = "", steps: Steps = ()) -> Iterator[Leaf]:
    """Yield the settings of a mapping in its order; keys may be dotted and mappings nested."""
    for name, inner in value.items():
        yield from leaves_of(prefix + name.removesuffix("+"), inner, (*steps, name), name.endswith("+"))


def leaves_of(key: str, value: Any, steps: Steps = (), append: bool = False) -> Iterator[Leaf]:
    """Yield the settings inside the value of a key, or the key itself."""
    owner = owner_of(key)
    if owner is not None:
        yield from _of_class(owner, key.removeprefix(f"{owner}."), value, steps, append)
        return
    if key in CLASS_SETTINGS and isinstance(value, Mapping):
        for name in sorted(value, key=lambda name: name != "class_path"):  # class_path decides which settings stay
            yield from _of_class(key, name.removesuffix("+"), value[name], (*steps, name), name.endswith("+"))
        return
    key = key.replace(".init_args.", ".")  # a dataclass takes its settings under init_args, too
    if key in mappings() and isinstance(value, Mapping) and value:
        own = value.get("init_args") or {} if "class_path" in value else value
        yield from leaves(own, f"{key}.", (*steps, "init_args") if "class_path" in value else steps)
    else:
        yield Leaf(key, value, steps, append)


def _of_class(owner: str, name: str, value: Any, steps: Steps, append: bool) -> Iterator[Leaf]:
    """Yield the settings under a class setting; its arguments may omit ``init_args``."""
    part, _, rest = name.partition(".")
    if name == "class_path":
        yield Leaf(owner, value, steps)
    elif part not in ("init_args", "dict_kwargs"):
        yield Leaf(f"{owner}.init_args.{name}", value, steps, append)
    elif rest:
        yield Leaf(f"{owner}.{name}", value, steps, append)
    elif isinstance(value, Mapping):
        for argument, inner in value.items():
            key = f"{owner}.{part}.{argument.removesuffix('+')}"
            yield Leaf(key, inner, (*steps, argument), argument.endswith("+"))


# --------------------------------------------------------------------------------------------- from leaves to settings


def put(settings: Settings, leaf: Leaf) -> None:
    """Set a setting to its value and replace an earlier value.

    A new class path keeps those earlier ``init_args`` that the new class accepts. This is jsonargparse's rule.
    """
    owner = owner_of(leaf.key)
    if leaf.key in CLASS_SETTINGS and (leaf.value is None or isinstance(leaf.value, str)):
        into, name = _parent(settings, leaf.key)
        into[name] = None if leaf.value is None else _changed_class(leaf.key, into.get(name), leaf.value)
    elif owner is not None:
        part, _, argument = leaf.key.removeprefix(f"{owner}.").partition(".")
        into, name = _parent(settings, owner)
        into[name] = _changed_class(owner, into.get(name), None)
        _put_value(into[name].setdefault(part, {}), argument, leaf)
    else:
        into, name = _parent(settings, leaf.key)
        if leaf.key in mappings() and (leaf.value is None or leaf.value == {}):
            into.setdefault(name, {})
        else:
            _put_value(into, name, leaf)


def _parent(settings: Settings, key: str) -> tuple[Settings, str]:
    """Return the mapping that holds a key (created if missing) and the last word of the key."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(settings.get(name), dict):
            settings[name] = {}
        settings = settings[name]
    return settings, last


def _put_value(into: Settings, name: str, leaf: Leaf) -> None:
    if leaf.append:
        before = into.get(name)
        before = before if isinstance(before, list) else [] if before is None else [before]
        into[name] = [*before, *(leaf.value if isinstance(leaf.value, list) else [leaf.value])]
    else:
        into[name] = copy.deepcopy(leaf.value)


def _changed_class(owner: str, before: Any, class_path: str | None) -> Settings:
    """Return a class setting after a new class path; ``None`` means the same class."""
    setting: Settings = {"class_path": before} if isinstance(before, str) else dict(before or {})
    old = setting.get("class_path", DEFAULT_CLASSES.get(owner))
    arguments = dict(setting.get("init_args") or {})
    if class_path is not None and class_path != old:
        accepted = class_settings(owner, class_path)
        known = {name: accepted.get(f"{owner}.init_args.{name}") for name in arguments}
        arguments = {n: value for n, value in arguments.items() if (s := known[n]) and s.type.accepts(value)}
    return {**setting, "class_path": class_path or old, "init_args": arguments}


def value_at(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key in some settings, ``ABSENT`` if there is none."""
    value: Any = settings
    for word in key.split("."):
        if not isinstance(value, Mapping) or word not in value:
            return ABSENT
        value = value[word]
    return value


# ---------------------------------------------------------------------------------------------------- files and flags


def settings_of(file: Path) -> LocatedYaml:
    """Read a configuration file.

    Raises:
        UserError: It does not exist, is not YAML or holds no settings.
    """
    content = read_yaml(file, "--config")
    if not isinstance(content.value, dict):
        raise UserError(f"{file} holds no settings: write each setting as 'key: value'")
    return content


class Composer:
    """Reads each file once and composes files and flags into nested settings."""

    def __init__(self) -> None:
        self._files: dict[Path, list[Leaf]] = {}
        self._composed: dict[tuple[Path, ...], Settings] = {}

    def settings(self, files: Sequence[Path], flags: Mapping[str, Any] | None = None) -> Settings:
        """Compose files from left to right, each after its ``base:`` file, and then flags.

        Args:
            files: Configuration files.
            flags: Full key -> value.

        Raises:
            UserError: A file does not exist, is not YAML or holds no settings.
        """
        key = tuple(files)
        if key not in self._composed:
            composed: Settings = {}
            words = expand_bases([word for file in files for word in ("--config", str(file))])
            for file in words[1::2]:
                for leaf in self._leaves(Path(file)):
                    put(composed, leaf)
            self._composed[key] = composed
        result = copy.deepcopy(self._composed[key])
        for name, value in (flags or {}).items():
            for leaf in leaves_of(name, value):
                put(result, leaf)
        return result

    def _leaves(self, file: Path) -> list[Leaf]:
        if file not in self._files:
            content = settings_of(file)
            self._files[file] = [leaf for leaf in leaves(content.value) if leaf.key != "base"]
            for leaf in self._files[file]:
                refuse_no_group(leaf, content.where(*leaf.steps))
        return self._files[file]

    def content(self, settings: Settings) -> Settings:
        """Return the settings that decide the result of a run, in a normal form.

        Numbers get the type of their setting. A budget ``like`` a file is replaced by the strategy in that file.
        """
        result: Settings = content(_normal(settings, "", {}))
        model: Any = result.get("model")
        budget = model.get("budget") if isinstance(model, dict) else None
        if isinstance(budget, dict) and local_path(str(budget.get("like"))).is_file():
            like = self.settings([local_path(budget["like"])]).get("model") or {}
            result["model"] = {**model, "budget": {"like": _normal(like.get("adapter"), "model.adapter", {})}}
        return result

    def signature(self, settings: Settings, **facts: Any) -> str:
        """Return a hash of the content of settings, independent of the order of keys."""
        return signature(self.content(settings), facts)


def _normal(value: Any, path: str, own: Mapping[str, Setting]) -> Any:
    """Return a value with the number types of its settings; ``own`` are the settings of the class around it."""
    if isinstance(value, Mapping):
        if path in CLASS_SETTINGS and isinstance(value.get("class_path"), str):
            own = class_settings(path, value["class_path"])
        return {k: _normal(v, f"{path}.{k}" if path else str(k), own) for k, v in value.items()}
    setting = own.get(path) or plain_settings().get(path)
    plain = setting.type.plain if setting else frozenset()
    if isinstance(value, int) and not isinstance(value, bool) and "float" in plain and "int" not in plain:
        return float(value)
    return value
