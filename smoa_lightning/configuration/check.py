"""The early check: refuse wrong settings in files and flags before heavy libraries are imported.

The full parser reads everything again afterwards. Settings that only the full parser can judge pass here: those of
libraries of a different version. Classes of the user are imported, and so are the libraries that they need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smoa_lightning.common.console import FLAGS
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.folder_names import check_folder_name
from smoa_lightning.common.paths import local_path, near_place
from smoa_lightning.configuration.class_names import check_class, class_paths_in
from smoa_lightning.configuration.combinations import check_combinations, check_task, check_teacher
from smoa_lightning.configuration.composition import (
    Leaf,
    Settings,
    leaves,
    leaves_of,
    put,
    refuse_no_group,
    settings_of,
    value_at,
)
from smoa_lightning.configuration.ignored_settings import check_ignored
from smoa_lightning.configuration.kept_settings import KeptSettings
from smoa_lightning.configuration.key_names import unknown_key
from smoa_lightning.configuration.own_classes import check_mappings, own_settings, unknown_argument
from smoa_lightning.configuration.ranges import check_value
from smoa_lightning.configuration.settings import (
    ABSENT,
    CLASS_SETTINGS,
    DEFAULT_CLASSES,
    SUBCOMMANDS,
    Setting,
    class_group,
    class_settings,
    groups,
    matches_schema,
    owner_of,
    wrong_value,
)
from smoa_lightning.configuration.shipped_files import is_config
from smoa_lightning.configuration.yaml_files import expand_bases, read_flag

SPECIAL = ("help", "print_config")
FLAGS_LAST = 2**31


class Check:
    """Checks the arguments of a command from left to right.

    Args:
        command: The command.
        imports: Whether classes that the schema does not describe are imported, to check their settings.

    Attributes:
        values: Key -> its last value: a text from flags, a YAML value from files.
        settings: The settings that files and flags compose so far.
        unclear: Whether only the full parser can read some argument, so that ``values`` may be wrong.
    """

    def __init__(self, command: str, imports: bool = False) -> None:
        command_groups = groups(command)
        self.groups = {group.name for group in command_groups if group.name}
        self.known: dict[str, Setting] = {s.key: s for group in command_groups for s in group.settings}
        self.values: dict[str, Any] = {}
        self.settings: Settings = {}
        self.unclear = False
        self.imports = imports
        self.own: dict[tuple[str, str], Mapping[str, Setting]] = {}  # class setting and own class -> its settings
        self.order: dict[str, int] = {}  # key -> number of the last file that sets it; flags have the largest number
        self.kept = KeptSettings()
        self._files = 0
        # an evaluation takes the classes of its checkpoint
        self.default_classes = DEFAULT_CLASSES if command in ("fit", "params") else {}

    def arguments(self, args: list[str]) -> None:
        """Check the arguments after the command.

        Raises:
            UserError: A file is missing or not YAML, a key is unknown, or a value does not fit its setting.
        """
        for key, text in flags(expand_bases(args)):
            if key == "config":
                file = local_path(text or "")
                self._files += 1
                content = settings_of(file)
                for leaf in leaves(content.value):
                    self.leaf(leaf, content.where(*leaf.steps))
            elif key not in SPECIAL:
                self.flag(key.removesuffix("+"), text, key.endswith("+"))

    def flag(self, key: str, text: str | None, append: bool = False) -> None:
        """Check one flag and its value; ``None`` means no value."""
        holds_settings = key in CLASS_SETTINGS or key in self.groups or self._takes_dataclass(key)
        mapping = text is not None and text.lstrip().startswith("{")
        value = read_flag(str(text), key).value if mapping else None  # refuses a key that appears twice
        if mapping and holds_settings:
            self.unclear = self.unclear or not isinstance(value, dict)
            for leaf in leaves_of(key, value) if isinstance(value, dict) else ():
                self.leaf(leaf, "")
            return
        for leaf in leaves_of(key, text, append=append):
            self.leaf(leaf, "", from_flag=True)

    def leaf(self, leaf: Leaf, where: str, from_flag: bool = False) -> None:
        """Check a setting and its value.

        Args:
            leaf: The setting.
            where: Start of a message: file and line; empty for flags.
            from_flag: Whether the value is the text of a flag.
        """
        key, value = leaf.key, leaf.value
        owner = owner_of(key)
        self._classes(key, value, where, from_flag)
        if key in CLASS_SETTINGS:
            self._class(key, "null" if value is None and not from_flag else value, where)
        elif owner is not None:
            self._argument(owner, leaf, where, from_flag)
        else:
            setting = self._setting(key, where)
            if setting is None or setting.key != key:
                if where:
                    refuse_no_group(leaf, where)
                self.unclear = self.unclear or (key in self.groups and value not in (None, {}))
                return  # a group in a separate file, or part of a mapping
            self._value(setting, leaf, where, from_flag)

    # --------------------------------------------------------------------------------------------------- single checks

    def _takes_dataclass(self, key: str) -> bool:
        return key in self.known and self.known[key].type.nested is not None

    def _setting(self, key: str, where: str) -> Setting | None:
        """Return the setting of a key, or the setting around it; ``None`` for a group.

        Raises:
            UserError: There is no such key.
        """
        if key in self.known:
            return self.known[key]
        parent = key.rpartition(".")[0]
        while parent:
            above = self.known.get(parent)
            if above is not None and (above.type.takes_mapping or not above.matches_schema):
                return above
            if above is not None and above.type.nested and key.rpartition(".")[2] in ("class_path", "init_args"):
                return above
            parent = parent.rpartition(".")[0]
        if key in self.groups or (key.startswith("trainer.") and not matches_schema("lightning")):
            return None
        known = [*self.known, *self.groups, *self._class_keys(), *(() if where else FLAGS)]
        raise UserError(unknown_key(key, known, where))

    def _class_keys(self) -> Iterator[str]:
        """Yield the keys of the classes that are set so far, as users write them."""
        for owner in CLASS_SETTINGS:
            accepted = self._accepted(owner, value_at(self.settings, f"{owner}.class_path"))
            yield from (key.replace(".init_args.", ".") for key in accepted or ())

    def _argument(self, owner: str, leaf: Leaf, where: str, from_flag: bool) -> None:
        """Check a setting of a class; a class that the schema does not describe takes any setting."""
        class_path = value_at(self.settings, f"{owner}.class_path")
        if class_path in (ABSENT, None):
            class_path = self.default_classes.get(owner)
        part, _, name = leaf.key.removeprefix(f"{owner}.").partition(".")
        accepted = self._accepted(owner, class_path) if part == "init_args" else None
        if accepted is not None:
            first = name.split(".")[0]
            setting = accepted.get(f"{owner}.init_args.{first}")
            if setting is None and all(known.matches_schema for known in accepted.values()):
                raise unknown_argument(f"{owner}.{first}", class_path, accepted, where)
            if setting is not None and first == name:
                self._value(setting, leaf, where, from_flag)
                return
        put(self.settings, leaf)

    def _accepted(self, owner: str, class_path: Any) -> Mapping[str, Setting] | None:
        """Return the settings of a class; ``None`` if they are not known."""
        if not isinstance(class_path, str):
            return None
        described = class_group(owner, class_path) is not None
        return class_settings(owner, class_path) if described else self.own.get((owner, class_path))

    def _value(self, setting: Setting, leaf: Leaf, where: str, from_flag: bool) -> None:
        if leaf.append and setting.matches_schema and not setting.type.takes_list:
            raise UserError(f"{where}{setting.key.replace('.init_args.', '.')} takes one value: write it without +")
        self.values[setting.key] = value = leaf.value
        self.order[setting.key] = self._files if where else FLAGS_LAST
        self.kept.set_again(setting.key)
        put(self.settings, leaf)
        if not setting.matches_schema or leaf.append or (from_flag and value is None):
            return
        check_value(setting.key, read_value(value, setting) if isinstance(value, str) else value, where)
        if from_flag and value == "null" and _takes_text_only(setting):
            raise UserError(wrong_value(setting, value))
        # other libraries omit None from the types of some settings that take it
        foreign = owner_of(setting.key) is not None or setting.key.startswith("trainer.")
        if value is None and (foreign or setting.default is None):
            return
        fits = setting.type.accepts_text(value) if from_flag else setting.type.accepts(value)
        if not fits:
            raise UserError(f"{where}{wrong_value(setting, value)}")

    def default(self, key: str) -> Any:
        """Return the default of a setting; ``None`` if it has none."""
        default = self.known[key].default if key in self.known else None
        return None if default is ABSENT else default

    def value(self, key: str) -> Any:
        """Return the last value of a setting, as the parser reads it, or its default; ``None`` if it is unknown."""
        setting = self.known.get(key)
        value = self.values.get(key, self.default(key))
        return read_value(value, setting) if isinstance(value, str) else value

    def _classes(self, key: str, value: Any, where: str, from_flag: bool) -> None:
        """Check the classes of a setting of the trainer, which may be given by name, as a mapping or as a list."""
        setting, _, part = key.partition(".class_path")
        if setting.startswith("trainer.") and not part:
            value = read_flag(value, key).value if from_flag and isinstance(value, str) else value
            for class_path in class_paths_in(value):
                check_class(setting, class_path, where)
            if self.imports:
                check_mappings(setting, value, where)

    def _class(self, key: str, value: Any, where: str) -> None:
        class_path = value.strip() if isinstance(value, str) else value
        class_path = None if class_path == "null" else class_path
        self.values[key] = class_path
        before = value_at(self.settings, key)
        put(self.settings, Leaf(key, class_path))
        check_class(key, class_path, where)
        if self.imports and isinstance(class_path, str) and (own := own_settings(key, class_path, where)) is not None:
            self.own[key, class_path] = own
        current = self._files if where else FLAGS_LAST
        recent = {name for name, order in self.order.items() if order == current}
        self.kept.class_named(key, before if isinstance(before, dict) else {}, self.settings, recent, bool(where))


def _takes_text_only(setting: Setting) -> bool:
    """Whether the parser would take the word null of a flag as a text, such as the name of a folder."""
    kind = setting.type
    return kind.plain == {"str"} and not kind.takes_null and setting.default not in (None, ABSENT)


def read_value(text: str, setting: Setting | None) -> Any:
    """Return the number, boolean or null that the parser reads from a text, else the text itself."""
    if setting is None or not setting.type.plain & {"int", "float", "bool"}:
        return None if text == "null" else text
    return read_flag(text, setting.key).value


def flags(args: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield key and value of each flag.

    Raises:
        UserError: A word is not the value of a flag.
    """
    index = 0
    while index < len(args):
        word = args[index]
        index += 1
        if not word.startswith("--"):
            if word.startswith("-"):
                continue  # a short flag, for the full parser
            is_file = word.endswith((".yaml", ".yml", ".json")) or is_config(word)
            hint = f": write --config {word}" if is_file else ""
            best = local_path(word) / "checkpoints" / "best.ckpt"
            hint = f"; did you mean --ckpt_path {best}?" if best.is_file() else hint
            raise UserError(f"{word!r} is not the value of a flag{hint or ': write --KEY VALUE'}")
        key, equals, value = word[2:].partition("=")
        if equals:
            yield key, value
        elif index < len(args) and not args[index].startswith("--") and args[index] not in ("-c", "-h"):
            yield key, args[index]
            index += 1
        else:
            yield key, None


def needs_checkpoint(command: str) -> str:
    """Return the message about an evaluation without a checkpoint."""
    return (
        f"{command} needs --ckpt_path RUN/checkpoints/best.ckpt, or --model.adapter null "
        "--model.frozen true to score the base model"
    )


def check_strategy(settings: Settings) -> None:
    """Refuse a training run for which nothing says what is trained.

    Raises:
        UserError: Neither ``model.adapter`` nor ``model.frozen`` nor a checkpoint is set.
    """
    if all(value_at(settings, key) is ABSENT for key in ("model.adapter", "model.frozen", "ckpt_path")):
        raise UserError(
            "no strategy is set: add --config experiments/adapters/lora.yaml or a different file of that folder; "
            "experiments/adapters/full.yaml is full fine-tuning"
        )


def check_arguments(command: str, args: list[str]) -> Settings | None:
    """Check the arguments of ``fit``, ``validate``, ``test``, ``predict`` or ``params``; return what they set.

    It is ``None`` if only the full parser can read them.

    Raises:
        UserError: An argument is wrong.
    """
    if any(word.partition("=")[0].endswith(".help") or word.startswith("--help=") for word in args):
        return None
    check = Check(command, imports=True)
    check.arguments(args)
    if check.unclear or any(word.startswith("--print_config") for word in args):
        return None
    checkpoint = check.values.get("ckpt_path")
    checkpoint = None if checkpoint in ("null", "") else checkpoint
    if isinstance(checkpoint, str) and not local_path(checkpoint).is_file():
        inside = local_path(checkpoint) / "checkpoints" / "best.ckpt"
        hint = f"; did you mean {inside}?" if inside.is_file() else ""
        fault = "is a folder" if local_path(checkpoint).is_dir() else f"does not exist{near_place(checkpoint)}"
        raise UserError(f"the checkpoint {checkpoint!r} {fault}{hint}")
    frozen = str(check.values.get("model.frozen", False)).lower() in ("true", "yes", "on")
    if command in SUBCOMMANDS[1:] and checkpoint is None and not frozen:
        raise UserError(needs_checkpoint(command))
    check_task(check.values.get("data.task"))
    if command in ("fit", "params"):
        check_ignored(check.value, check.default, check.order)
        check.kept.report(check.settings)
        check_teacher(check.values)
    if command == "fit":
        check_combinations(check.value)
    name = check.values.get("run.name")
    if isinstance(name, str) and name != "null":
        check_folder_name(name, "run.name")
    return check.settings
