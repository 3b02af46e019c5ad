"""``configs``: list, show and copy the experiment and study files of the package."""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path

from smoa_lightning.commands.arguments import ArgumentParser
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.common.paths import local_path
from smoa_lightning.configuration.settings import SCHEMA_FILE
from smoa_lightning.configuration.shipped_files import KINDS, description, full_name, only_shipped, shipped_files


def main(args: list[str]) -> None:
    """List, show or copy files of the package.

    Raises:
        UserError: There is no such file, or the copy would replace a file.
    """
    parser = ArgumentParser(
        prog="python -m smoa_lightning configs",
        description="The experiments (for fit) and studies (for ablate) of the package. A --config takes these names, "
        "such as piqa or experiments/piqa.yaml, where the working directory has no such file.",
    )
    actions = parser.add_subparsers(dest="action", metavar="show | copy")
    show = actions.add_parser("show", help="print a file")
    show.add_argument("name", help="its name, such as piqa")
    copy = actions.add_parser("copy", help="copy a file, to change it")
    copy.add_argument("name", help="its name, such as piqa")
    copy.add_argument("folder", type=local_path, help="folder for the copy")
    parsed = parser.parse_args(args)
    if parsed.action is None:
        print(listing())
    elif parsed.action == "show":
        print(named(parsed.name).read_text(encoding="utf-8"), end="")
    else:
        print(copied(named(parsed.name), parsed.folder))


def listing() -> str:
    """Return a line for each file, with its name and the first sentence of its comment."""
    files = {full_name(file): description(file) for kind in KINDS for file in shipped_files(kind).values()}
    widest = max(map(len, files), default=0)
    width = max(40, shutil.get_terminal_size((140, 24)).columns - widest - 2)
    lines = [f"{name:{widest}}  {textwrap.shorten(text, width, placeholder=' ...')}" for name, text in files.items()]
    return "\n".join(lines)


def named(name: str) -> Path:
    """Return the file with a name.

    Raises:
        UserError: There is no such file, or several files have the name.
    """
    found = only_shipped(name)
    if found is not None:
        return found
    known = [known for kind in KINDS for known in shipped_files(kind)]
    raise UserError(f"the package has no configuration {name!r}; {the_nearest(nearest(name, known, 3))}")


def copied(file: Path, folder: Path) -> Path:
    """Copy a file into a folder; return the copy.

    The files that it names under ``base`` or in a study are found in the package, so they need no copy.

    Raises:
        UserError: The folder has a file with this name.
    """
    copy = folder / file.name
    if copy.exists():
        raise UserError(f"{copy} exists: choose a different folder, or move the file away")
    text = re.sub(r"\$schema=\S+", lambda found: f"$schema={SCHEMA_FILE}", file.read_text(encoding="utf-8"))
    with replacing(copy) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return copy
