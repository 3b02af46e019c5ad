"""The help of a command: every setting with its type, its default and its meaning, in the order of use."""

from __future__ import annotations

import contextlib
import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.check import Check, check_arguments
from smoa_lightning.configuration.composition import value_at
from smoa_lightning.configuration.settings import (
    ABSENT,
    CLASS_SETTINGS,
    DEFAULT_CLASSES,
    Group,
    Setting,
    certain,
    class_group,
    groups,
    schema,
)

COLUMN = 44
EXAMPLES = """\
Settings are given as flags or in files of the same keys, from left to right:
  python -m smoa_lightning {command} --config experiments/piqa.yaml --model.adapter.r 8 --data.batch_size 16
Lists as '[a, b]', mappings as '{{a: 1}}', nothing as null. --print_config shows the result of files and flags.
After --model.adapter CLASS (or a file that names one) this help lists the settings of that class too.
A value after = is the default, or what the given files and flags make of it."""


def answered_early(command: str, args: list[str]) -> bool:
    """Give help, or refuse what is wrong in the arguments, before anything heavy is imported.

    Returns:
        Whether help was asked for and printed, so that the command is done.

    Raises:
        UserError: Something in the arguments is certainly wrong.
    """
    if "-h" in args or "--help" in args:
        print(describe(command, args))
        return True
    check_arguments(command, args)
    return False


def describe(command: str, args: list[str]) -> str:
    """Return the help of a command.

    Args:
        command: ``fit``, ``validate``, ``test``, ``predict`` or ``params``.
        args: What is given after it: classes that are named there are explained too, and given values are shown.
    """
    width = min(shutil.get_terminal_size((120, 24)).columns, 140)
    given = _given(command, args)
    lines = [
        f"usage: python -m smoa_lightning {command} [--config FILE ...] [--KEY VALUE ...]",
        "",
        groups(command)[0].title,
        "",
        EXAMPLES.format(command=command),
        *_other_versions(),
    ]
    for group in [*groups(command), *_named_classes(given)]:
        title = f"{group.name}: {group.title}" if group.name else "general"
        lines += ["", *textwrap.wrap(title, width)]
        for setting in group.settings:
            lines += _entry(setting, value_at(given, setting.key), width)
    return "\n".join(lines)


def _given(command: str, args: list[str]) -> Mapping[str, Any]:
    """What files and flags come to; whatever else is wrong with them, help is given."""
    check = Check(command)
    with contextlib.suppress(UserError):
        check.arguments([word for word in args if word not in ("-h", "--help")])
    return check.settings


def _named_classes(given: Mapping[str, Any]) -> list[Group]:
    """The settings of the classes that the arguments name, or that are the default."""
    paths = {key: value_at(given, f"{key}.class_path") for key in CLASS_SETTINGS}
    named = {key: DEFAULT_CLASSES.get(key) if path is ABSENT else path for key, path in paths.items()}
    found = [class_group(key, path) for key, path in named.items() if isinstance(path, str)]
    return [group for group in found if group is not None]


def _other_versions() -> list[str]:
    versions = schema()["x-versions"]
    return [f"The settings of {name} are those of {name} {v}." for name, v in versions.items() if not certain(name)]


def _entry(setting: Setting, given: Any, width: int) -> list[str]:
    """One setting: its name, its type and value, and its meaning beside or below that."""
    key = setting.key.replace(".init_args.", ".")
    given = given.get("class_path") if setting.key in CLASS_SETTINGS and isinstance(given, dict) else given
    holds_settings = isinstance(given, dict) and setting.type.nested is not None
    value = setting.default if given is ABSENT or holds_settings else given
    shown = "" if value is ABSENT else f" = {value if isinstance(value, str) else json.dumps(value)}"
    head = f"  --{key} {setting.type.notation()}{shown}"
    meaning = textwrap.wrap(setting.help, max(width - COLUMN, 30)) or [""]
    indent = " " * COLUMN
    if len(head) + 2 <= COLUMN:
        return [f"{head:{COLUMN}}{meaning[0]}".rstrip(), *(indent + line for line in meaning[1:])]
    return [*textwrap.wrap(head, width, subsequent_indent="      ", break_on_hyphens=False),
            *(indent + line for line in meaning if line)]  # fmt: skip
