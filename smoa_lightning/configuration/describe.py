"""The help of a command: the type, default and meaning of every setting, most used first."""

from __future__ import annotations

import contextlib
import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from smoa_lightning.common import other_backbone
from smoa_lightning.common.allowed_classes import FLAG
from smoa_lightning.common.allowed_classes import HELP as FLAG_HELP
from smoa_lightning.common.console import HELP
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.check import Check, check_arguments, check_strategy
from smoa_lightning.configuration.composition import value_at
from smoa_lightning.configuration.local_places import check_places
from smoa_lightning.configuration.settings import (
    ABSENT,
    CLASS_SETTINGS,
    DEFAULT_CLASSES,
    Group,
    Setting,
    class_group,
    groups,
    matches_schema,
    schema,
)

COLUMN = 44
PARAMS_FLAGS = {  # of the command line only
    "--json": "print one JSON object, and nothing else, to the standard output",
    "--length N": "tokens of a row for the estimate of memory; without it data.max_length, or the limit of the model",
    "--targets N": "tokens of a row that the loss reads; without it all of them, which is the most",
    "--no_memory": "leave out the estimate of memory and disk, which takes some seconds",
}
EXAMPLES = """\
Flags and files set the same keys; later ones replace earlier ones:
  python -m smoa_lightning {command} --config experiments/piqa.yaml --model.adapter.r 8 --data.batch_size 16
Write lists as '[a, b]', mappings as '{{a: 1}}' and no value as null. --print_config prints the composed settings.
After --model.adapter CLASS (or a file that names one) this help lists the settings of that class too.
A value after = is the default, or the value from the given files and flags."""


def help_or_check(command: str, args: list[str]) -> bool:
    """Print help if the arguments ask for it, else check the arguments, before heavy libraries are imported.

    Returns:
        Whether help was printed, so that the command is done.

    Raises:
        UserError: An argument is wrong.
    """
    if "-h" in args or "--help" in args:
        print(describe(command, args))
        return True
    settings = check_arguments(command, args)
    if command in ("fit", "params") and settings is not None:
        check_strategy(settings)
        check_places(settings, command)
    return False


def describe(command: str, args: list[str]) -> str:
    """Return the help of a command.

    Args:
        command: ``fit``, ``validate``, ``test``, ``predict`` or ``params``.
        args: Its arguments. The help shows their values and the settings of the classes that they name.
    """
    width = min(shutil.get_terminal_size((120, 24)).columns, 140)
    settings = _composed(command, args)
    lines = [
        f"usage: python -m smoa_lightning {command} [--config FILE ...] [--KEY VALUE ...]",
        "",
        groups(command)[0].title,
        "",
        EXAMPLES.format(command=command),
        "",
        HELP,
        f"  --{FLAG} PACKAGE: {FLAG_HELP}",
        *([f"  {flag}: {text}" for flag, text in PARAMS_FLAGS.items()] if command == "params" else []),
        *([] if command == "params" else [f"  --{other_backbone.FLAG}: {other_backbone.HELP}"]),
        *_other_versions(),
    ]
    for group in [*groups(command), *_named_classes(settings)]:
        title = f"{group.name}: {group.title}" if group.name else "general"
        lines += ["", *textwrap.wrap(title, width)]
        for setting in group.settings:
            lines += setting_lines(setting, value_at(settings, setting.key), width)
    return "\n".join(lines)


def _composed(command: str, args: list[str]) -> Mapping[str, Any]:
    """Return the settings up to the first wrong argument, since wrong arguments must not prevent help."""
    check = Check(command)
    with contextlib.suppress(UserError):
        check.arguments([word for word in args if word not in ("-h", "--help")])
    return check.settings


def _named_classes(settings: Mapping[str, Any]) -> list[Group]:
    """Return the settings of the classes that the arguments name, or of the default classes."""
    paths = {key: value_at(settings, f"{key}.class_path") for key in CLASS_SETTINGS}
    named = {key: DEFAULT_CLASSES.get(key) if path is ABSENT else path for key, path in paths.items()}
    class_groups = [class_group(key, path) for key, path in named.items() if isinstance(path, str)]
    return [group for group in class_groups if group is not None]


def _other_versions() -> list[str]:
    versions = [(name, v) for name, v in schema()["x-versions"].items() if not matches_schema(name)]
    return [f"The settings of {name} below are those of version {version}." for name, version in versions]


def setting_lines(setting: Setting, given: Any, width: int) -> list[str]:
    """Return the lines of one setting: its name, type and value, with its meaning next to or below them."""
    key = setting.key.replace(".init_args.", ".")
    given = given.get("class_path") if setting.key in CLASS_SETTINGS and isinstance(given, dict) else given
    holds_settings = isinstance(given, dict) and setting.type.nested is not None
    value = setting.default if given is ABSENT or holds_settings else given
    assignment = "" if value is ABSENT else f" = {value if isinstance(value, str) else json.dumps(value)}"
    head = f"  --{key} {setting.type.notation()}{assignment}"
    meaning = textwrap.wrap(setting.help, max(width - COLUMN, 30)) or [""]
    indent = " " * COLUMN
    if len(head) + 2 <= COLUMN:
        return [f"{head:{COLUMN}}{meaning[0]}".rstrip(), *(indent + line for line in meaning[1:])]
    return [*textwrap.wrap(head, width, subsequent_indent="      ", break_on_hyphens=False),
            *(indent + line for line in meaning if line)]  # fmt: skip
