"""The type of a setting, from its node of the JSON Schema: the check of a value, and its description."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml

from smoa_lightning.configuration.yaml_files import number_of

Node = Mapping[str, Any]
PLAIN = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}
UNREAD = ("'", '"', "[", "{", "!", "&", "*")  # only the full parser reads flags that begin with these


@dataclass(frozen=True)
class ValueType:
    """A union of plain types, listed values, lists, mappings and the fields of a dataclass.

    Args:
        node: The node of the schema.
        definitions: Reference -> node of the schema.
    """

    node: Node = field(hash=False, compare=False)
    definitions: Mapping[str, Node] = field(hash=False, compare=False, repr=False)

    # ------------------------------------------------------------------------------------------------------ its parts

    @cached_property
    def _parts(self) -> tuple[Node, ...]:
        return tuple(self._flat(self.node))

    def _flat(self, node: Node) -> Iterator[Node]:
        """Yield the alternatives of a node; a reference is replaced by its definition."""
        if "anyOf" in node:
            for inner in node["anyOf"]:
                yield from self._flat(inner)
        elif "$ref" in node:
            yield from self._flat(self.definitions[node["$ref"].rpartition("/")[2]])
        else:
            kinds = node.get("type")
            yield from ({**node, "type": kind} for kind in kinds) if isinstance(kinds, list) else (node,)

    @cached_property
    def plain(self) -> frozenset[str]:
        """The types out of ``int``, ``float``, ``bool`` and ``str`` that it takes."""
        return frozenset(PLAIN[part["type"]] for part in self._parts if part.get("type") in PLAIN)

    @cached_property
    def values(self) -> tuple[Any, ...]:
        """The listed values that it takes."""
        return tuple(dict.fromkeys(value for part in self._parts for value in part.get("enum", ())))

    @cached_property
    def takes_null(self) -> bool:
        """Whether it takes ``null``."""
        return any(part.get("type") == "null" for part in self._parts) or None in self.values

    @cached_property
    def nested(self) -> Mapping[str, Node] | None:
        """Field -> node of the dataclass that it takes, ``None`` if it takes no dataclass."""
        return next((part["properties"] for part in self._parts if "properties" in part and "allOf" not in part), None)

    @cached_property
    def takes_mapping(self) -> bool:
        """Whether it takes a mapping with any keys."""
        return any(not part or (part.get("type") == "object" and "properties" not in part) for part in self._parts)

    @cached_property
    def takes_list(self) -> bool:
        """Whether it takes a list, or any value."""
        return any(not part or part.get("type") == "array" for part in self._parts)

    # ---------------------------------------------------------------------------------------------------- the check

    def accepts(self, value: Any) -> bool:
        """Whether a value of a configuration file fits; true in doubt."""
        if isinstance(value, bool) and any(isinstance(known, str) for known in self.values):
            return True  # YAML reads on, off, yes and no as booleans
        return any(self._valid(reading) for reading in _readings(value))

    def accepts_text(self, text: str) -> bool:
        """Whether the text of a flag fits; true in doubt."""
        word = text.strip()
        if "str" in self.plain or self.nested is not None or word.startswith(UNREAD):
            return True
        return word in map(str, self.values) or any(self._valid(reading) for reading in _readings(word))

    def _valid(self, value: Any) -> bool:
        from smoa_lightning.configuration.validator import is_valid  # imported here, since it takes 0.05 seconds

        return is_valid(value, {**self.node, "$defs": self.definitions})

    # --------------------------------------------------------------------------------------------------- the words

    def words(self) -> list[str]:
        """Return the words that it takes, for a message: listed values, true and false, null."""
        words = [str(value) for value in self.values if value is not None]
        words += ["true", "false"] if "bool" in self.plain else []
        return list(dict.fromkeys(words)) + (["null"] if self.takes_null else [])

    def describe(self, valid: object = None) -> str:
        """Describe it for a message: ``likelihood, generation or null``, ``a whole number (at least 1) or null``.

        Args:
            valid: The valid range of its numbers; a mapping, such as a tensor of torch, is not offered then.
        """
        numbers = ["a number"] if "float" in self.plain else ["a whole number"] if "int" in self.plain else []
        numbers = [f"{word} ({valid})" for word in numbers] if valid else numbers
        words = numbers + self.words() + (["text"] if "str" in self.plain else [])
        words += ["a list"] if any(part.get("type") == "array" for part in self._parts) else []
        words += ["a mapping"] if (self.takes_mapping and not valid) or self.nested is not None else []
        return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1] if words else "another value"

    def notation(self) -> str:
        """Return the type for a help text: ``int | null``, ``likelihood | generation``, ``list[str]``."""
        if "x-notation" in self.node:
            return str(self.node["x-notation"])
        kinds = list(dict.fromkeys(self._notation(self.node)))
        return " | ".join([*(word for word in kinds if word != "null"), *(["null"] if "null" in kinds else [])])

    def _notation(self, node: Node) -> Iterator[str]:
        if "anyOf" in node:
            yield from itertools.chain.from_iterable(map(self._notation, node["anyOf"]))
        elif "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        elif "enum" in node:
            yield from ("null" if value is None else str(value) for value in node["enum"])
        else:
            kinds = node.get("type", "any")
            yield from (self._kind(kind, node) for kind in (kinds if isinstance(kinds, list) else [kinds]))

    def _kind(self, kind: str, node: Node) -> str:
        if kind == "array":
            inner = list(self._notation(node.get("items") or {}))
            return "list" if inner == ["any"] else f"list[{' | '.join(inner)}]"
        if kind == "object":
            inner = list(self._notation(node["additionalProperties"])) if node.get("additionalProperties") else []
            return f"dict[str, {' | '.join(inner)}]" if inner else "dict"
        return PLAIN.get(kind, kind)


def _readings(value: Any) -> Iterator[Any]:
    """Yield a value, and the value with its texts read as YAML: the parser takes ``'3'`` for a number."""
    yield value
    read = _read(value)
    if read is not value:
        yield read


def _read(value: Any) -> Any:
    if isinstance(value, str):
        number = number_of(value.strip())
        if number is not None:
            return number
        try:
            read = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
            return value
        return value if isinstance(read, str) else read
    if isinstance(value, list) and any(isinstance(item, str) for item in value):
        return [_read(item) for item in value]
    if isinstance(value, dict) and any(isinstance(item, str) for item in value.values()):
        return {key: _read(item) for key, item in value.items()}
    return value
