"""YAML files as values that know where they stand, and later files over earlier ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.yaml_files import compose, read_yaml

Steps = tuple[str | int, ...]

# YAML 1.1 reads 1e-3 as text; the configuration files take it as a number, and so do studies.
_EXPONENT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass(frozen=True)
class Mark:
    """Where a value was written.

    Attributes:
        text: What a message says: ``FILE, line N`` or ``--KEY``.
        folder: Where files that it names are looked for first; ``None`` for a flag.
    """

    text: str
    folder: Path | None = None


@dataclass
class Tree:
    """A value of a YAML file and the places of its parts.

    Attributes:
        value: Mappings, lists and scalars.
        marks: Keys and positions that lead to a part -> where it stands.
    """

    value: Any
    marks: dict[Steps, Mark] = field(default_factory=dict)

    def mark(self, *steps: str | int) -> Mark:
        """Return the place of a part, or of the nearest part around it that has one."""
        while steps and steps not in self.marks:
            steps = steps[:-1]
        return self.marks.get(steps, Mark(""))

    def where(self, *steps: str | int) -> str:
        """Return the beginning of a message about a part: ``FILE, line N: ``."""
        text = self.mark(*steps).text
        return f"{text}: " if text else ""


def read_tree(file: Path, named_by: str) -> Tree:
    """Read a YAML file.

    Raises:
        UserError: It does not exist, is not YAML, or has a key twice in one mapping.
    """
    node, _ = read_yaml(file, named_by)
    tree = Tree(None, {(): Mark(str(file), file.parent)})
    tree.value = None if node is None else _value(node, (), tree, file)
    return tree


def text_tree(text: str, flag: str) -> Tree:
    """Read the value of a flag, as YAML; what is not YAML is text."""
    tree = Tree(text, {(): Mark(f"--{flag}")})
    try:
        node, _ = compose(text)
    except yaml.YAMLError:
        return tree
    tree.value = None if node is None else _value(node, (), Tree(None), Path())
    return tree


def merged(before: Tree, after: Tree, depths: Mapping[str, int]) -> Tree:
    """Lay a later tree over an earlier one; both are mappings.

    Args:
        before: The earlier tree.
        after: The later tree, whose values win.
        depths: Top-level key -> how many levels below it mappings are united, key by key; deeper, and for all other
            keys, the later value stands instead of the earlier one.
    """
    tree = Tree(dict(before.value), dict(before.marks))

    def lay(into: dict[str, Any], over: Mapping[str, Any], steps: Steps, depth: int) -> None:
        for key, value in over.items():
            here = (*steps, key)
            left = depths.get(key, 0) if not steps else depth - 1
            if left > 0 and isinstance(value, dict) and isinstance(into.get(key), dict):
                into[key] = dict(into[key])
                lay(into[key], value, here, left)
                continue
            tree.marks = {known: mark for known, mark in tree.marks.items() if known[: len(here)] != here}
            tree.marks |= {known: mark for known, mark in after.marks.items() if known[: len(here)] == here}
            tree.marks.setdefault(here, after.mark(*here))
            into[key] = value

    lay(tree.value, after.value, (), 0)
    return tree


def _value(node: yaml.Node, steps: Steps, tree: Tree, file: Path) -> Any:
    if steps:
        tree.marks.setdefault(steps, Mark(f"{file}, line {node.start_mark.line + 1}", file.parent))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, steps, tree, file)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*steps, index), tree, file) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if node.tag == "tag:yaml.org,2002:str":
        return float(node.value) if not node.style and _EXPONENT.fullmatch(node.value) else node.value
    return yaml.SafeLoader("").construct_object(node)


def _mapping(node: yaml.MappingNode, steps: Steps, tree: Tree, file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        own = node.start_mark.index <= key_node.start_mark.index < node.end_mark.index  # not merged in by <<
        if own and key in lines:
            raise UserError(
                f"{file}, line {line}: {key!r} stands there a second time; the first is in line {lines[key]}"
            )
        if own:
            lines[key] = line
        tree.marks[(*steps, key)] = Mark(f"{file}, line {line}", file.parent)
        found[key] = _value(value_node, (*steps, key), tree, file)
    return found
