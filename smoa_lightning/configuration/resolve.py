"""What files and flags of a run come to, as the command line composes them, without importing what they name."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import expand_bases
from smoa_lightning.configuration.located_yaml import read_tree
from smoa_lightning.configuration.settings import CLASS_SETTINGS, DEFAULT_CLASSES, Setting, class_group, groups
from smoa_lightning.records.record import content, signature

Settings = dict[str, Any]


@cache
def members(owner: str, class_path: str) -> Mapping[str, Setting]:
    """Return full key -> setting of a class under the key that takes it; nothing where its source does not tell."""
    group = class_group(owner, class_path)
    return {setting.key: setting for setting in group.settings} if group else {}


class Resolver:
    """Reads each file once and composes files and flags to nested settings."""

    def __init__(self) -> None:
        found = groups("fit")
        self._mappings = {group.name for group in found if group.name}
        self._mappings |= {s.key for group in found for s in group.settings if s.kind.nested}
        self._plain = {s.key: s for group in found for s in group.settings}
        self._files: dict[Path, Any] = {}
        self._composed: dict[tuple[Path, ...], Settings] = {}

    def settings(self, files: Sequence[Path], flags: Mapping[str, Any] | None = None) -> Settings:
        """Compose files from left to right, each after the file that it names under ``base:``, and then flags.

        Where a later class path differs from an earlier one, those ``init_args`` stay that the new class has too: that
        is jsonargparse's rule.

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
                self._merge(composed, self._content(Path(file)), "")
            self._composed[key] = composed
        result = copy.deepcopy(self._composed[key])
        for name, value in (flags or {}).items():
            self._set(result, name, copy.deepcopy(value))
        return result

    def content(self, settings: Settings) -> Settings:
        """Return what of settings decides the result, in a form that does not depend on how it was written.

        Numbers have the type of their setting, and a budget ``like`` a file stands for the strategy in that file.
        """
        result: Settings = content(self._normal(settings, "", {}))
        model: Any = result.get("model")
        budget = model.get("budget") if isinstance(model, dict) else None
        if isinstance(budget, dict) and Path(str(budget.get("like"))).is_file():
            like = self.settings([Path(budget["like"])]).get("model") or {}
            result["model"] = {**model, "budget": {"like": self._normal(like.get("adapter"), "model.adapter", {})}}
        return result

    def signature(self, settings: Settings, **facts: Any) -> str:
        """Return a hash of the content of settings; it does not depend on the order of keys."""
        return signature(self.content(settings), facts)

    # ----------------------------------------------------------------------------------------------------- composing

    def _content(self, file: Path) -> Settings:
        if file not in self._files:
            content = read_tree(file, "--config").value
            if not isinstance(content, dict):
                raise UserError(f"{file} holds no settings: write each as 'key: value'")
            self._files[file] = {key: value for key, value in content.items() if key != "base"}
        return self._files[file]

    def _merge(self, into: Settings, new: Mapping[str, Any], prefix: str) -> None:
        for name, value in new.items():
            head, _, rest = name.partition(".")
            if rest:
                name, value = head, {rest: value}
            self._put(into, name.removesuffix("+"), f"{prefix}{name.removesuffix('+')}", value, name.endswith("+"))

    def _put(self, into: Settings, name: str, path: str, value: Any, append: bool = False) -> None:
        before = into.get(name)
        if path in CLASS_SETTINGS:
            into[name] = _class(before, value, path)
        elif path in self._mappings and isinstance(value, Mapping):
            into[name] = before if isinstance(before, dict) else {}
            # the settings of a dataclass may stand under init_args too
            inner = value.get("init_args", {}) if "class_path" in value else value
            self._merge(into[name], inner, f"{path}.")
        elif path in self._mappings and value is None:
            into.setdefault(name, {})
        elif append:
            into[name] = [*(before or []), *(value if isinstance(value, list) else [value])]
        else:
            into[name] = copy.deepcopy(value)

    def _set(self, into: Settings, key: str, value: Any) -> None:
        owner = next((name for name in CLASS_SETTINGS if key.startswith(f"{name}.")), None)
        if owner is not None:
            part, _, rest = key.removeprefix(f"{owner}.").partition(".")
            key, value = owner, {part: {rest: value} if rest else value}
        *parents, last = key.split(".")
        for name in parents:
            if not isinstance(into.get(name), dict):
                into[name] = {}
            into = into[name]
        self._put(into, last, key, value)

    # --------------------------------------------------------------------------------------------------- normal form

    def _normal(self, value: Any, path: str, own: Mapping[str, Setting]) -> Any:
        if isinstance(value, Mapping):
            if path in CLASS_SETTINGS and isinstance(value.get("class_path"), str):
                own = members(path, value["class_path"])
            return {k: self._normal(v, f"{path}.{k}" if path else str(k), own) for k, v in value.items()}
        setting = own.get(path) or self._plain.get(path)
        takes = setting.kind.plain if setting else frozenset()
        if isinstance(value, int) and not isinstance(value, bool) and "float" in takes and "int" not in takes:
            return float(value)
        return value


def _class(before: Any, value: Any, path: str) -> Settings | None:
    """What a class setting comes to when a value is given after another."""
    if value is None:
        return None
    given: Settings = {"class_path": value} if isinstance(value, str) else copy.deepcopy(dict(value))
    before = {"class_path": before} if isinstance(before, str) else dict(before or {})
    old = before.get("class_path", DEFAULT_CLASSES.get(path))
    given.setdefault("class_path", old)
    kept = dict(before.get("init_args") or {})
    if given["class_path"] != old:
        taken = members(path, str(given["class_path"]))
        keys = {name: f"{path}.init_args.{name}" for name in kept}
        kept = {name: v for name, v in kept.items() if keys[name] in taken and taken[keys[name]].kind.takes(v)}
    result = {"class_path": given["class_path"], "init_args": kept | (given.get("init_args") or {})}
    extra = (before.get("dict_kwargs") or {}) | (given.get("dict_kwargs") or {})
    return result | ({"dict_kwargs": extra} if extra else {})
