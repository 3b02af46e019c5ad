"""The early check: what is certainly wrong in files and flags is said before anything heavy is imported.

The full parser still reads everything afterwards and has the last word. What only it can judge passes here:
abbreviated keys, lists, dictionaries, instances of classes that the sources do not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.settings import (
    CLASS_SETTINGS,
    DEFAULT_CLASSES,
    READABLE,
    SUBCOMMANDS,
    Group,
    Setting,
    class_group,
    groups,
)
from smoa_lightning.configuration.source import read_module
from smoa_lightning.configuration.yaml_files import compose, expand_bases, read_yaml

SPECIAL = ("help", "print_config")
CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


class Check:
    """A command line or a file under examination, from left to right.

    Attributes:
        values: Key -> the last value that was given, as text from flags and as YAML's value from files.
        opaque: Whether something was given that only the full parser can read, so that ``values`` may be wrong.
        classes: Key of a class setting -> the class path that holds now, ``None`` where it is not known.
    """

    def __init__(self, command: str) -> None:
        found = groups(command)
        self.groups = {group.name for group in found if group.name}
        self.settings: dict[str, Setting] = {s.key: s for group in found for s in group.settings}
        self.values: dict[str, Any] = {}
        self.opaque = False
        self.classes: dict[str, str | None] = dict(DEFAULT_CLASSES) if command in ("fit", "params") else {}

    # ------------------------------------------------------------------------------------------------ command line

    def arguments(self, args: list[str]) -> None:
        """Examine what stands after the command.

        Raises:
            UserError: A file that is missing or no YAML, an unknown key, a value that its setting cannot take.
        """
        for key, text in flags(expand_bases(args)):
            if key == "config":
                self.file(Path(text or ""))
            elif key not in SPECIAL:
                self.flag(key.removesuffix("+"), text)

    def flag(self, key: str, text: str | None) -> None:
        """Examine one flag and its value, ``None`` if it has none."""
        owner = next((name for name in CLASS_SETTINGS if key.startswith(f"{name}.")), None)
        if owner is not None:
            self._nested_flag(owner, key, text)
            return
        setting = self._known(key, "")
        if text is None:
            return
        if key in CLASS_SETTINGS:
            self._class_flag(key, text)
        elif key in self.groups or (setting and setting.kind.nested):
            if text.lstrip().startswith("{"):
                self._inline(key, text)
            else:
                self.opaque = True  # a file with the settings of a group
        elif setting is not None and setting.key == key:
            self._value(setting, text, setting.kind.takes_text(text), "")

    def _nested_flag(self, owner: str, key: str, text: str | None) -> None:
        rest = key.removeprefix(f"{owner}.").removeprefix("init_args.")
        if rest == "class_path" and text is not None:
            self._class_flag(owner, text)
        group = self._class_of(owner)
        if rest.split(".")[0] in CLASS_KEYS or group is None:
            return
        setting = self._member(group, owner, rest.split(".")[0], "")
        if text is not None and "." not in rest:
            self._value(setting, text, setting.kind.takes_text(text), "")

    def _class_flag(self, key: str, text: str) -> None:
        word = text.strip()
        if word.startswith("{"):
            self._inline(key, word)
        else:
            self._set_class(key, None if word == "null" else word, "")

    def _inline(self, key: str, text: str) -> None:
        try:
            node, _ = compose(text)
        except yaml.YAMLError:
            self.opaque = True  # the full parser may read it as JSON, or says what is wrong
            return
        if node is not None:
            self._node(key, node, "")

    # ------------------------------------------------------------------------------------------------------- files

    def file(self, file: Path) -> None:
        """Examine a configuration file."""
        node, content = read_yaml(file, "--config")
        if not isinstance(content, dict):
            raise UserError(f"{file} holds no settings: write each as 'key: value'")
        for key, line, value in _items(node):
            self._node(key, value, f"{file}, line {line}: ")

    def _node(self, key: str, node: yaml.Node, where: str) -> None:
        """Examine the value of a key: a mapping by its keys, anything else against the setting's type."""
        key = key.removesuffix("+")
        setting = self._known(key, where)
        if key in CLASS_SETTINGS:
            self._class_node(key, node, where)
        elif isinstance(node, yaml.MappingNode) and (key in self.groups or (setting and setting.kind.nested)):
            items = list(_items(node))
            if setting and "class_path" in (name for name, _, _ in items):
                items = [item for name, _, value in items if name == "init_args" for item in _items(value)]
            for name, line, value in items:
                self._node(f"{key}.{name}", value, _with_line(where, line))
        elif key in self.groups:
            self.opaque = True  # a file with the settings of a group
        elif isinstance(node, yaml.ScalarNode) and setting is not None and setting.key == key:
            value = _scalar(node)
            self._value(setting, value, setting.kind.takes(value), where)
        elif setting is not None and isinstance(node, yaml.MappingNode | yaml.SequenceNode) and setting.key == key:
            self._value(setting, node.value, setting.kind.open or bool(setting.kind.nested), where)

    def _class_node(self, key: str, node: yaml.Node, where: str) -> None:
        if isinstance(node, yaml.ScalarNode):
            self._set_class(key, _scalar(node), where)
            return
        items = {name: (line, value) for name, line, value in _items(node)}
        if "class_path" in items and isinstance(items["class_path"][1], yaml.ScalarNode):
            self._set_class(key, _scalar(items["class_path"][1]), _with_line(where, items["class_path"][0]))
        group = self._class_of(key)
        if group is None or "init_args" not in items:
            return
        for name, line, value in _items(items["init_args"][1]):
            here = _with_line(where, line)
            setting = self._member(group, key, name.removesuffix("+").split(".")[0], here)
            if isinstance(value, yaml.ScalarNode) and "." not in name:
                self._value(setting, _scalar(value), setting.kind.takes(_scalar(value)), here)

    # ----------------------------------------------------------------------------------------------------- verdicts

    def _known(self, key: str, where: str) -> Setting | None:
        """Return the setting of a key, or the one that it lies within; ``None`` for a group or an abbreviation.

        Raises:
            UserError: There is no such key.
        """
        key = key.replace(".init_args.", ".")
        if key in self.settings:
            return self.settings[key]
        parent = key.rpartition(".")[0]
        while parent:
            above = self.settings.get(parent)
            if above is not None and (above.kind.open or above.key in CLASS_SETTINGS):
                return above
            if above is not None and above.kind.nested and key.rpartition(".")[2] in ("class_path", "init_args"):
                return above
            parent = parent.rpartition(".")[0]
        options = [*self.groups, *(s.key for s in self.settings.values() if not s.within)]
        if key not in self.groups:
            if where or not any(option.startswith(key) for option in options):
                raise UserError(unknown_key(key, [*self.settings, *self.groups], where))
            self.opaque = True  # an abbreviation
        return None

    def _value(self, setting: Setting, value: Any, fits: bool, where: str) -> None:
        self.values[setting.key] = value
        if not fits:
            kind = setting.kind
            close = f"; the nearest is {nearest(str(value), kind.values(), 1)}" if kind.literals else ""
            raise UserError(f"{where}{setting.key} is {value!r}, but takes {kind.told()}{close}")

    def _set_class(self, key: str, class_path: Any, where: str) -> None:
        self.classes[key] = class_path if isinstance(class_path, str) else None
        self.values[key] = class_path
        if key == "model.adapter" and isinstance(class_path, str):
            check_strategy(class_path, where)

    def _class_of(self, key: str) -> Group | None:
        class_path = self.classes.get(key)
        return class_group(key, class_path) if class_path else None

    def _member(self, group: Group, owner: str, name: str, where: str) -> Setting:
        """Return the setting of a class; the sentence about an unknown one names those of that class."""
        prefix = f"{owner}.init_args."
        found = next((s for s in group.settings if s.key == prefix + name), None)
        if found is None:
            known = [s.key.removeprefix(prefix) for s in group.settings]
            close = ", ".join(f"{owner}.{near}" for near in nearest(name, known, 3).split(", "))
            raise UserError(
                f"{where}unknown key {f'{owner}.{name}'!r} of {self.classes[owner]}; the nearest valid keys are {close}"
            )
        return found


def unknown_key(key: str, known: list[str], where: str = "") -> str:
    """Say that there is no such key, and which keys look like it."""
    return f"{where}unknown key {key!r}; the nearest valid keys are {nearest(key, known, 3)}"


def flags(args: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield key and value of each flag.

    Raises:
        UserError: A word that belongs to no flag.
    """
    index = 0
    while index < len(args):
        word = args[index]
        index += 1
        if not word.startswith("--"):
            if word.startswith("-"):
                continue  # a short flag, for the full parser
            hint = f"; did you mean --config {word}?" if word.endswith((".yaml", ".yml", ".json")) else ""
            raise UserError(f"{word!r} belongs to no setting{hint or ': write --KEY VALUE'}")
        key, equals, value = word[2:].partition("=")
        if equals:
            yield key, value
        elif index < len(args) and not args[index].startswith("--") and args[index] not in ("-c", "-h"):
            yield key, args[index]
            index += 1
        else:
            yield key, None


def check_strategy(class_path: str, where: str = "") -> None:
    """Refuse a strategy that is certainly in no module of peft or of ours.

    Raises:
        UserError: Names the nearest configurations of the same module.
    """
    package, _, name = class_path.rpartition(".")
    module = read_module(package) if class_path.startswith(READABLE) else None
    if module is None or name in module.names or "__getattr__" in module.names:
        return
    configs = [n for n in module.names if n.endswith("Config")]
    if configs:
        close = nearest(name, configs, 3)
        raise UserError(
            f"{where}model.adapter: there is no strategy {class_path!r}; the nearest classes in {package} are {close}"
        )


def needs_checkpoint(command: str) -> str:
    """Say what an evaluation needs."""
    return (
        f"{command} needs --ckpt_path RUN/checkpoints/best.ckpt, or --model.adapter null "
        "--model.frozen true to score the untouched backbone"
    )


def check_arguments(command: str, args: list[str]) -> None:
    """Examine the command line of ``fit``, ``validate``, ``test``, ``predict`` or ``params``.

    Raises:
        UserError: Something in it is certainly wrong.
    """
    if any(word.partition("=")[0].endswith(".help") or word.startswith("--help=") for word in args):
        return
    check = Check(command)
    check.arguments(args)
    if check.opaque or any(word.startswith("--print_config") for word in args):
        return
    given = check.values
    checkpoint, task = given.get("ckpt_path"), given.get("data.task")
    if isinstance(checkpoint, str) and checkpoint != "null" and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint!r}")
    if command in SUBCOMMANDS[1:] and "ckpt_path" not in given and "model.frozen" not in given:
        raise UserError(needs_checkpoint(command))
    if isinstance(task, str) and task != "mixture":
        from smoa_lightning.data.tasks import get_task  # light, but only looked at when a task is named

        get_task(task)


def _items(node: yaml.Node | None) -> Iterator[tuple[str, int, yaml.Node]]:
    """Yield key, line and value of a mapping, but not what YAML merges into it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                yield str(key.value), key.start_mark.line + 1, value


def _scalar(node: yaml.ScalarNode) -> Any:
    return node.value if node.tag == "tag:yaml.org,2002:str" else yaml.SafeLoader("").construct_object(node)


def _with_line(where: str, line: int) -> str:
    """The same file with another line; nothing for a value on the command line."""
    return f"{where.rpartition(', line ')[0]}, line {line}: " if where else ""
