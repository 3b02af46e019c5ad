"""YAML files: values that know where they were written, later files over earlier ones, files named by ``base``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smoa_lightning.common.errors import UserError, nearest

Steps = tuple[str | int, ...]

_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# YAML 1.1 reads 1e-3 as text; the configuration files take it as a number, and so do studies.
_EXPONENT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass(frozen=True)
class SourceLocation:
    """Where a value was written.

    Attributes:
        text: What a message says: ``FILE, line N`` or ``--KEY``.
        folder: Where files that the value names are looked for first; ``None`` for a flag.
    """

    text: str
    folder: Path | None = None


@dataclass
class LocatedYaml:
    """A value of a YAML file and the locations of its parts.

    Attributes:
        value: Mappings, lists and scalars.
        locations: Keys and positions that lead to a part -> where it was written.
    """

    value: Any
    locations: dict[Steps, SourceLocation] = field(default_factory=dict)

    def location(self, *steps: str | int) -> SourceLocation:
        """Return the location of a part, or of the nearest part around it that has one."""
        while steps and steps not in self.locations:
            steps = steps[:-1]
        return self.locations.get(steps, SourceLocation(""))

    def where(self, *steps: str | int) -> str:
        """Return the beginning of a message about a part: ``FILE, line N: ``."""
        text = self.location(*steps).text
        return f"{text}: " if text else ""


def number_of(text: str) -> float | None:
    """Return the number of a text such as ``1e-3``, which YAML 1.1 reads as text; ``None`` for any other text.

    >>> number_of("1e-3"), number_of("1.0")
    (0.001, None)
    """
    return float(text) if _EXPONENT.fullmatch(text) else None


def read_yaml(file: Path, named_by: str) -> LocatedYaml:
    """Read a YAML file.

    Args:
        file: The file.
        named_by: What names it, for the message: ``--config``.

    Raises:
        UserError: The file does not exist, is not YAML, or has a key twice in one mapping.
    """
    if not file.is_file():
        raise no_such_file(str(file), [file], named_by)
    try:
        node = _syntax_tree(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).replace("<unicode string>", file.name).replace('"', "'").split())
        raise UserError(f"{file} is not valid YAML: {reason}") from error
    found = LocatedYaml(None, {(): SourceLocation(str(file), file.parent)})
    found.value = None if node is None else _value(node, (), found, file)
    return found


def no_such_file(name: str, places: Sequence[Path], named_by: str) -> UserError:
    """Return the error about a YAML file that is in none of some places, with the nearest names in the first folder."""
    folder = next((place.parent for place in places if place.parent.is_dir()), Path())
    found = nearest(places[0].name, [p.name for p in sorted(folder.glob("*.yaml"))] or ["no YAML file"])
    return UserError(f"{named_by}: there is no file {name!r}; {str(folder)!r} holds {found}")


def read_flag(text: str, flag: str) -> LocatedYaml:
    """Read the value of a flag as YAML; what is not YAML is text."""
    found = LocatedYaml(text, {(): SourceLocation(f"--{flag}")})
    try:
        node = _syntax_tree(text)
    except yaml.YAMLError:
        return found
    found.value = None if node is None else _value(node, (), LocatedYaml(None), Path())
    return found


def merged(before: LocatedYaml, after: LocatedYaml, depths: Mapping[str, int]) -> LocatedYaml:
    """Lay later settings over earlier ones; both are mappings.

    Args:
        before: The earlier settings.
        after: The later ones, whose values win.
        depths: Top-level key -> how many levels below it mappings are united, key by key; deeper, and for all other
            keys, the later value replaces the earlier one.
    """
    result = LocatedYaml(dict(before.value), dict(before.locations))

    def lay(into: dict[str, Any], over: Mapping[str, Any], steps: Steps, depth: int) -> None:
        for key, value in over.items():
            here = (*steps, key)
            left = depths.get(key, 0) if not steps else depth - 1
            if left > 0 and isinstance(value, dict) and isinstance(into.get(key), dict):
                into[key] = dict(into[key])
                lay(into[key], value, here, left)
                continue
            kept = {known: mark for known, mark in result.locations.items() if known[: len(here)] != here}
            new = {known: mark for known, mark in after.locations.items() if known[: len(here)] == here}
            result.locations = kept | new
            result.locations.setdefault(here, after.location(*here))
            into[key] = value

    lay(result.value, after.value, (), 0)
    return result


def expand_bases(args: list[str]) -> list[str]:
    """Put before each ``--config FILE`` the file that it names under ``base:``, and so on; each base once.

    Raises:
        UserError: A file does not exist or is not YAML.
    """
    expanded: list[str] = []
    seen: set[Path] = set()

    def add(file: Path, named_by: str) -> None:
        content = read_yaml(file, named_by).value
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


# --------------------------------------------------------------------------------------------- from syntax to values


def _syntax_tree(text: str) -> yaml.Node | None:
    """The syntax tree of a YAML text, with what ``<<`` merges into its mappings.

    Raises:
        yaml.YAMLError: The text is not YAML.
    """
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        if node is not None:
            loader.construct_document(node)  # merges, and refuses what is no value
        return node
    finally:
        loader.dispose()


def _value(node: yaml.Node, steps: Steps, found: LocatedYaml, file: Path) -> Any:
    if steps:
        line = node.start_mark.line + 1
        found.locations.setdefault(steps, SourceLocation(f"{file}, line {line}", file.parent))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, steps, found, file)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*steps, index), found, file) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value  # the real parser reads no dates
    if node.tag == "tag:yaml.org,2002:str":
        number = None if node.style else number_of(node.value)
        return node.value if number is None else number
    return yaml.SafeLoader("").construct_object(node)


def _mapping(node: yaml.MappingNode, steps: Steps, found: LocatedYaml, file: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{file}, line {line}: a key must be a word, not a list or a mapping")
        key = str(key_node.value)
        own = node.start_mark.index <= key_node.start_mark.index < node.end_mark.index  # not merged in by <<
        if own and key in lines:
            raise UserError(f"{file}, line {line}: the key {key!r} is there twice; the first is in line {lines[key]}")
        if own:
            lines[key] = line
        found.locations[(*steps, key)] = SourceLocation(f"{file}, line {line}", file.parent)
        values[key] = _value(value_node, (*steps, key), found, file)
    return values
