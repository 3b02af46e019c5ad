"""Configuration keys in a study file: short names, nested mappings, and the values that the keys take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from smoa_lightning.common.errors import UserError, the_nearest
from smoa_lightning.configuration.key_names import OTHER_WORDS, ending_with, near_keys
from smoa_lightning.configuration.ranges import check_value
from smoa_lightning.configuration.settings import CLASS_SETTINGS, Setting, class_group, groups, owner_of, wrong_value

# Keys that a study decides itself, with the reason or the replacement.
DECIDED = {
    "seed_everything": "the study's 'seeds' decide it",
    "base": "the study's 'base' lists the files that are read first",
    "config": "a value of an axis may be a file, or name a file under 'config'",
    "ckpt_path": "every run of a study starts from the base model",
    "run.root": "the folder of the study decides it",
    "run.folder": "the folder of the study decides it",
    "run.name": "the cell decides it",
    "run.score_base": "one run scores the base model for all cells that share it",
    "run.score_report": "final runs score the report rows, and trials of a search do not",
}
# Keys that are not found by their last word alone, since it is also a common label of a value.
NOT_ALONE = {"model.distillation.weight"}


class Keys:
    """The settings of ``fit`` and of the strategies and optimizers that a study names.

    Args:
        classes: ``model.adapter`` and ``model.optimizer`` -> the class paths in the study.
        command: The command whose settings are named.
        decided: Keys that cannot be set -> the reason.
    """

    def __init__(
        self, classes: Mapping[str, Iterable[str]], command: str = "fit", decided: Mapping[str, str] = DECIDED
    ) -> None:
        fit_groups, self.decided = groups(command), decided
        self.groups = {group.name for group in fit_groups if group.name}
        self.settings: dict[str, list[Setting]] = {s.key: [s] for group in fit_groups for s in group.settings}
        self.unreadable: set[str] = set()  # class settings with a class that the schema does not describe
        for owner, paths in classes.items():
            for path in sorted(paths):
                group = class_group(owner, path)
                if group is None or not all(setting.matches_schema for setting in group.settings):
                    self.unreadable.add(owner)
                for setting in group.settings if group else ():
                    self.settings.setdefault(setting.key, []).append(setting)

    def known(self, key: str) -> bool:
        """Whether a full key names a setting, or a part of a setting that takes any mapping."""
        if key in self.settings:
            return True
        owner = owner_of(key)
        if owner is not None:
            rest = key.removeprefix(f"{owner}.")
            return rest.startswith("dict_kwargs.") or (rest.startswith("init_args.") and owner in self.unreadable)
        above = key.rpartition(".")[0]
        while above:
            if above in self.settings:
                return any(s.type.takes_mapping or not s.matches_schema for s in self.settings[above])
            above = above.rpartition(".")[0]
        return False

    def find(self, name: str, where: str = "") -> str:
        """Return the full key of a name: the key itself, or the only key that ends with it, such as ``r`` or ``lr``.

        Raises:
            UserError: The name fits no key, several keys, or a key that the study decides itself.
        """
        key = _full(name)
        if key in self.decided:
            raise UserError(f"{where}{key} cannot be set in a study: {self.decided[key]}")
        if self.known(key):
            return key
        ends = self.ending(name)
        if len(ends) > 1:
            other = [key for key in OTHER_WORDS.get(name, ()) if key in self.decided]
            decided = "".join(f" ({key}: {self.decided[key]})" for key in other)
            raise UserError(f"{where}{name!r} may mean {' or '.join(ends)}: write the full key{decided}")
        if not ends:
            raise UserError(f"{where}unknown key {name!r}; {the_nearest(self.near(name), 'key')}")
        return ends[0]

    def near(self, name: str) -> str:
        """Return the three valid keys that look most like a name, as full keys or by their last word."""
        free = [key for key in reversed(self.settings) if key not in self.decided]
        words = {key.rpartition(".")[2]: key for key in free}
        words |= {self.short(key): key for key in reversed(free)}
        return ", ".join(dict.fromkeys(words[word] for word in near_keys(name, words)))

    def is_key(self, name: str) -> bool:
        """Whether a name means a setting, a group of settings, or several settings."""
        return name in self.groups or name in self.decided or self.known(_full(name)) or bool(self.ending(name))

    def ending(self, name: str) -> list[str]:
        """Return the keys whose last words are a name."""
        hidden = {*self.decided, *(NOT_ALONE if "." not in name else ())}
        return ending_with(name, (key for key in self.settings if key not in hidden), (_full(name),))

    @staticmethod
    def short(key: str) -> str:
        """Return a key without ``init_args``."""
        return key.replace(".init_args.", ".")

    def flatten(self, mapping: Mapping[str, Any], where: str = "", prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the full key and value of each setting of a mapping, nested like a configuration file.

        Raises:
            UserError: A key is unknown, or a value does not fit its setting.
        """
        for name, value in mapping.items():
            inner = f"{prefix}{name}"
            key = inner if inner in self.groups else self.find(inner, where)
            if key in self.groups and not isinstance(value, Mapping):
                raise UserError(f"{where}{key} is a group of settings: write '{key}: {{KEY: VALUE}}'")
            if key in CLASS_SETTINGS and isinstance(value, Mapping):
                yield from self._class(key, value, where)
            elif isinstance(value, Mapping) and (key in self.groups or self._nested(key)):
                yield from self.flatten(value, where, f"{key}.")
            else:
                self.check(key, value, where)
                yield key, value

    def _class(self, key: str, mapping: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
        for name, value in mapping.items():
            if name == "class_path":
                yield key, value
            elif name in ("init_args", "dict_kwargs") and isinstance(value, Mapping):
                yield from self.flatten(value, where, f"{key}.{name}.")
            else:
                yield from self.flatten({name: value}, where, f"{key}.init_args.")

    def _nested(self, key: str) -> bool:
        return any(setting.type.nested is not None for setting in self.settings.get(key, ()))

    def check(self, key: str, value: Any, where: str = "") -> None:
        """Refuse a value that no setting of this key takes.

        Raises:
            UserError: The value is wrong; the message names the valid values and the nearest one.
        """
        if key in CLASS_SETTINGS and isinstance(value, str) and value.endswith((".yaml", ".yml")):
            raise UserError(
                f"{where}{key} is the file {value!r}, but a file cannot be the value of one key: make the file a value "
                f"of an axis, 'method: [{value}]', or list it under 'base'"
            )
        known = self.settings.get(key, [])
        if any(setting.matches_schema for setting in known):
            check_value(key, value, where)
        if known and not any(key in CLASS_SETTINGS or not s.matches_schema or s.type.accepts(value) for s in known):
            raise UserError(f"{where}{wrong_value(known[0], value)}")

    def whole(self, key: str) -> bool | None:
        """Whether a setting takes whole numbers only; ``None`` if its type is not a plain number."""
        plain = {name for setting in self.settings.get(key, ()) for name in setting.type.plain}
        if "float" in plain:
            return False if "int" not in plain else None
        return True if "int" in plain else None


def _full(name: str) -> str:
    """Return the key with ``init_args`` inserted and ``class_path`` removed."""
    for owner in CLASS_SETTINGS:
        rest = name.removeprefix(f"{owner}.")
        if rest != name and rest == "class_path":
            return owner
        if rest != name and rest.split(".")[0] not in ("init_args", "dict_kwargs"):
            return f"{owner}.init_args.{rest}"
    return name
