"""The help of a command: every setting with its type, its default and its meaning, in the order of use."""

from __future__ import annotations

import contextlib
import re
import shutil
import textwrap

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.check import Check
from smoa_lightning.configuration.docstring import plain
from smoa_lightning.configuration.settings import CLASS_SETTINGS, Group, Setting, class_group, groups

COLUMN = 44
EXAMPLES = """\
Settings are given as flags or in files of the same keys, from left to right:
  python -m smoa_lightning {command} --config experiments/piqa.yaml --model.adapter.r 8 --data.batch_size 16
Lists as '[a, b]', mappings as '{{a: 1}}', nothing as null. --print_config shows the result of files and flags.
After --model.adapter CLASS (or a file that names one) this help lists the settings of that class too."""


def describe(command: str, args: list[str], purpose: str) -> str:
    """Return the help of a command.

    Args:
        command: ``fit``, ``validate``, ``test``, ``predict`` or ``params``.
        args: What stands after it; classes that are named there are explained too.
        purpose: What the command does.
    """
    width = min(shutil.get_terminal_size((120, 24)).columns, 140)
    lines = [
        f"usage: python -m smoa_lightning {command} [--config FILE ...] [--KEY VALUE ...]",
        "",
        purpose.capitalize(),
        "",
    ]
    lines += [EXAMPLES.format(command=command)]
    for group in [*groups(command), *_named_classes(command, args)]:
        title = f"{group.name}: {group.title}" if group.name else "general"
        lines += ["", *textwrap.wrap(title, width)]
        for setting in group.settings:
            lines += _entry(setting, width)
    return "\n".join(lines)


def _named_classes(command: str, args: list[str]) -> list[Group]:
    """The settings of the classes that the arguments name; whatever else is wrong with them, help is given."""
    check = Check(command)
    with contextlib.suppress(UserError):
        check.arguments([word for word in args if word not in ("-h", "--help")])
    named = {key: check.classes.get(key) for key in CLASS_SETTINGS}
    found = [class_group(key, class_path) for key, class_path in named.items() if class_path]
    return [group for group in found if group is not None]


def _entry(setting: Setting, width: int) -> list[str]:
    """One setting: what it is called, takes and is by default, and what it means beside or below that."""
    key = setting.key.replace(".init_args.", ".")
    default = f" = {setting.default}" if setting.default else ""
    head = f"  --{key} {setting.kind.text or 'FILE'}{default}"
    meaning = textwrap.wrap(_meaning(setting.help), max(width - COLUMN, 30)) or [""]
    indent = " " * COLUMN
    if len(head) + 2 <= COLUMN:
        return [f"{head:{COLUMN}}{meaning[0]}".rstrip(), *(indent + line for line in meaning[1:])]
    return [*textwrap.wrap(head, width, subsequent_indent="      ", break_on_hyphens=False),
            *(indent + line for line in meaning if line)]  # fmt: skip


def _meaning(text: str) -> str:
    """A meaning without markup and without what the line says already."""
    text = re.sub(r"\s*Default(?:s to)?:? ``[^`]*``\.?", "", text)
    return plain(text)
