"""YAML files: values with the lines that they come from, merged files, and files named under ``base``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.configuration.shipped_files import config_file

MOST_VALUES = 100_000  # of a file, with every alias written out
Steps = tuple[str | int, ...]

_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# YAML 1.1 reads 1e-3 as text; configuration files and studies take it as a number.
_EXPONENT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass(frozen=True)
class SourceLocation:
    """The place in a file, or the flag, that a value comes from.

    Attributes:
        text: Its name in messages: ``FILE, line N`` or ``--KEY``.
        folder: First folder in which to look for files that the value names; ``None`` for a flag.
    """

    text: str
    folder: Path | None = None


@dataclass
class LocatedYaml:
    """A value of a YAML file and the locations of its parts.

    Attributes:
        value: Mappings, lists and scalars.
        locations: Keys and positions that lead to a part -> its location.
    """

    value: Any
    locations: dict[Steps, SourceLocation] = field(default_factory=dict)

    def location(self, *steps: str | int) -> SourceLocation:
        """Return the location of a part, or of the nearest part around it with a location."""
        while steps and steps not in self.locations:
            steps = steps[:-1]
        return self.locations.get(steps, SourceLocation(""))

    def where(self, *steps: str | int) -> str:
        """Return the start of a message about a part: ``FILE, line N: ``."""
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
        named_by: The flag or key that names the file, for messages: ``--config``.

    Raises:
        UserError: The file does not exist, is not YAML, or has a key twice in one mapping.
    """
    if not file.is_file():
        raise UserError(f"{named_by}: the file {str(file)!r} does not exist")
    try:
        node = _syntax_tree(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = one_line(error).replace("<unicode string>", file.name).replace('"', "'")
        raise UserError(f"{file} is not valid YAML: {reason}") from error
    result = LocatedYaml(None, {(): SourceLocation(str(file), file.parent)})
    result.value = None if node is None else _value(node, (), result, file)
    return result


def read_flag(text: str, flag: str) -> LocatedYaml:
    """Read the value of a flag as YAML; a value that is not YAML is text."""
    result = LocatedYaml(text, {(): SourceLocation(f"--{flag}")})
    try:
        node = _syntax_tree(text)
    except yaml.YAMLError:
        return result
    result.value = None if node is None else _value(node, (), LocatedYaml(None), Path(f"--{flag}"))
    return result


def merged(before: LocatedYaml, after: LocatedYaml, depths: Mapping[str, int]) -> LocatedYaml:
    """Merge later settings into earlier ones; both are mappings, and later values replace earlier values.

    Args:
        before: The earlier settings.
        after: The later settings.
        depths: Top-level key -> the number of levels below it on which mappings are merged key by key. On deeper
            levels, and for all other keys, the later value replaces the earlier one as a whole.
    """
    result = LocatedYaml(dict(before.value), dict(before.locations))

    def merge(into: dict[str, Any], later: Mapping[str, Any], steps: Steps, depth: int) -> None:
        for key, value in later.items():
            here = (*steps, key)
            left = depths.get(key, 0) if not steps else depth - 1
            if left > 0 and isinstance(value, dict) and isinstance(into.get(key), dict):
                into[key] = dict(into[key])
                merge(into[key], value, here, left)
                continue
            earlier = {part: place for part, place in result.locations.items() if part[: len(here)] != here}
            new = {part: place for part, place in after.locations.items() if part[: len(here)] == here}
            result.locations = earlier | new
            result.locations.setdefault(here, after.location(*here))
            into[key] = value

    merge(result.value, after.value, (), 0)
    return result


def expand_bases(args: list[str]) -> list[str]:
    """Insert before each ``--config FILE`` its ``base:`` file, and the base of that file; each base once.

    The files come first, in their order: flags override files in any order. A file that is not in its folder is
    looked up among the files of the package.

    Raises:
        UserError: A file does not exist or is not YAML, its base is no name of a file, or is the file itself.
    """
    files: list[str] = []
    others: list[str] = []
    seen: set[Path] = set()

    def add(file: Path, named_by: str) -> None:
        content = read_yaml(file, named_by).value
        base = content.get("base") if isinstance(content, dict) else None
        if isinstance(content, dict) and "axes" in content:
            raise UserError(f"{named_by}: {file} is a study: run it with ablate --config {file}")
        if base is not None and not isinstance(base, str):
            raise UserError(f"{file}: base is {base!r}, but must be the name of one file")
        if base is not None:
            before = config_file(base, "experiments", f"base of {file}", [file.parent])
            if before.resolve() == file.resolve():
                raise UserError(
                    f"{file}: base is {base!r}, which is this file itself: name another file, or remove base"
                )
            if before.resolve() not in seen:
                seen.add(before.resolve())
                add(before, f"base of {file}")
        files.extend(["--config", str(file)])

    remaining = iter(args)
    for argument in remaining:
        if argument in ("--config", "-c"):
            add(config_file(next(remaining, ""), "experiments", argument), argument)
        elif argument.startswith("--config="):
            add(config_file(argument.removeprefix("--config="), "experiments", "--config"), "--config")
        else:
            others.append(argument)
    commands = int(bool(others) and not others[0].startswith("-"))
    return [*others[:commands], *files, *others[commands:]]


# --------------------------------------------------------------------------------------------- from syntax to values


def _syntax_tree(text: str) -> yaml.Node | None:
    """Return the syntax tree of a YAML text, with the keys that ``<<`` merges.

    Raises:
        yaml.YAMLError: The text is not YAML.
    """
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        if node is not None:
            _count(node, {})
            loader.construct_document(node)  # merges, and refuses invalid values
        return node
    except (ValueError, TypeError, OverflowError) as error:  # a date such as 2020-13-01, a number of 5,000 digits
        if isinstance(error, UnicodeDecodeError):
            raise
        raise yaml.YAMLError(str(error).partition(";")[0]) from error
    except RecursionError as error:
        raise yaml.YAMLError("lists or mappings are nested too deeply") from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values in a syntax tree, with every alias written out.

    Args:
        node: The tree.
        known: Identity of a node -> its number of values; 0 while they are counted.

    Raises:
        yaml.YAMLError: An alias contains itself, or there are too many values.
    """
    if id(node) not in known:
        known[id(node)] = 0
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inside = 0 if isinstance(node, yaml.ScalarNode) else sum(_count(part, known) for part in parts)
        known[id(node)] = 1 + inside
    line = node.start_mark.line + 1
    if known[id(node)] == 0:
        raise yaml.YAMLError(f"line {line}: the value contains itself through an alias")
    if known[id(node)] > MOST_VALUES:
        raise yaml.YAMLError(
            f"line {line}: with its aliases it has {known[id(node)]} values, but at most {MOST_VALUES}"
        )
    return known[id(node)]


def _value(node: yaml.Node, steps: Steps, result: LocatedYaml, file: Path) -> Any:
    if steps:
        line = node.start_mark.line + 1
        result.locations.setdefault(steps, SourceLocation(f"{file}, line {line}", file.parent))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, steps, result, file)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*steps, index), result, file) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value  # the real parser reads dates as text
    if node.tag == "tag:yaml.org,2002:str":
        number = None if node.style else number_of(node.value)
        return node.value if number is None else number
    return yaml.SafeLoader("").construct_object(node)


def _mapping(node: yaml.MappingNode, steps: Steps, result: LocatedYaml, file: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{file}, line {line}: a key must be a word, not a list or a mapping")
        key = str(key_node.value)
        own = node.start_mark.index <= key_node.start_mark.index < node.end_mark.index  # not merged in by <<
        if own and key in lines:
            raise UserError(f"{file}, line {line}: the key {key!r} appears twice; the first is in line {lines[key]}")
        if own:
            lines[key] = line
        result.locations[(*steps, key)] = SourceLocation(f"{file}, line {line}", file.parent)
        values[key] = _value(value_node, (*steps, key), result, file)
    return values
