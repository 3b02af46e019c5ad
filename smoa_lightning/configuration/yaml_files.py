"""Configuration files: which are read, in which order, and on which line each key stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from smoa_lightning.common.errors import UserError, nearest

_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def compose(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the syntax tree of a YAML text, which knows its lines, and the value that it stands for.

    Raises:
        yaml.YAMLError: The text is not YAML.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def read_yaml(file: Path, named_by: str) -> tuple[yaml.Node | None, Any]:
    """Read a configuration file as :func:`compose` does.

    Raises:
        UserError: The file does not exist or is not YAML.
    """
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else Path()
        found = nearest(file.name, [p.name for p in sorted(folder.glob("*.yaml"))] or ["no YAML file"])
        raise UserError(f"{named_by}: there is no file {str(file)!r}; {str(folder)!r} holds {found}")
    try:
        return compose(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).replace("<unicode string>", file.name).replace('"', "'").split())
        raise UserError(f"{file} is not valid YAML: {reason}") from error


def expand_bases(args: list[str]) -> list[str]:
    """Put before each ``--config FILE`` the file that it names under ``base:``, and so on; each base once.

    Raises:
        UserError: A file does not exist or is not YAML.
    """
    expanded: list[str] = []
    seen: set[Path] = set()

    def add(file: Path, named_by: str) -> None:
        content = read_yaml(file, named_by)[1]
        base = content.get("base") if isinstance(content, dict) else None
        if base is not None and (file.parent / base).resolve() not in seen:
            seen.add((file.parent / base).resolve())
            add(file.parent / base, f"base of {file}")
        expanded.extend(["--config", str(file)])

    remaining = iter(args)
    for argument in remaining:
        if argument in ("--config", "-c"):
            add(Path(next(remaining, "")), argument)
        elif argument.startswith("--config="):
            add(Path(argument.removeprefix("--config=")), "--config")
        else:
            expanded.append(argument)
    return expanded
