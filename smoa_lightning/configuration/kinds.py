"""What a setting takes, as far as its annotation in the source tells; the rest is left to the full parser."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from smoa_lightning.configuration.source import ClassSource, Module, Parameter, look_up, parameters

FOLLOWED = ("smoa_lightning.", "peft.")
PLAIN = ("int", "float", "bool", "str")
_NUMBER = re.compile(r"[-+]?[0-9.][0-9._:a-fxobn+-]*|[-+]?\.?(inf|nan|infinity)", re.IGNORECASE)
_WHOLE = re.compile(r"[-+]?[0-9][0-9_:a-fxobn]*", re.IGNORECASE)  # wider than YAML's: what is in doubt passes
_TRUTH = ("true", "false", "yes", "no", "on", "off")
_NOTHING = ("null", "~", "")


@dataclass(frozen=True)
class Kind:
    """A union of plain types, literal values, a dataclass, and what cannot be judged here.

    Attributes:
        plain: Those of ``int``, ``float``, ``bool``, ``str`` that it takes.
        literals: Values that it takes.
        nothing: Whether it takes ``null``.
        open: Whether it takes something else, such as a list or an instance of a class.
        nested: The dataclass whose fields are nested settings.
        text: The annotation as it stands in the source, shortened.
    """

    plain: frozenset[str] = frozenset()
    literals: tuple[Any, ...] = ()
    nothing: bool = False
    open: bool = False
    nested: ClassSource | None = None
    text: str = ""

    def takes_text(self, text: str) -> bool:
        """Whether the text of a flag or of a quoted value can be one: false only where that is certain."""
        word = text.strip()
        if self.open or self.nested or "str" in self.plain or word[:1] in ("'", '"', "[", "{", "!", "&", "*"):
            return True
        return (
            any(word == str(value) for value in self.literals)
            or (self.nothing and word.lower() in _NOTHING)
            or ("bool" in self.plain and word.lower() in _TRUTH)
            or ("int" in self.plain and bool(_WHOLE.fullmatch(word)))
            or ("float" in self.plain and bool(_NUMBER.fullmatch(word)))
        )

    def takes(self, value: Any) -> bool:
        """Whether a value of a configuration file can be one: false only where that is certain."""
        if isinstance(value, str):
            return self.takes_text(value)
        if value is None or self.open or self.nested or not isinstance(value, bool | int | float):
            return True
        if isinstance(value, bool):
            return bool(self.plain & {"bool", "float"}) or any(isinstance(v, str) for v in self.literals)
        if value in self.literals:
            return True
        return "float" in self.plain or (isinstance(value, int) and "int" in self.plain)

    def values(self) -> list[str]:
        """The words that it takes, for a message."""
        words = list(dict.fromkeys(str(value) for value in self.literals))
        words += ["true", "false"] if "bool" in self.plain else []
        return words + (["null"] if self.nothing else [])

    def told(self) -> str:
        """What it takes, for a message: ``likelihood, generation or null``, ``a whole number or null``."""
        numbers = {"int": "a whole number", "float": "a number"}
        words = [numbers[name] for name in ("int", "float") if name in self.plain] + self.values()
        words = [word for word in words if word != "a whole number" or "float" not in self.plain]
        words += ["text"] if "str" in self.plain else []
        return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1] if words else self.text


def kind_of(parameter: Parameter) -> Kind:
    """Return the kind of a parameter."""
    if parameter.type is None:
        return Kind(open=True)
    parts = _Parts()
    parts.add(parameter.type, parameter.module)
    return Kind(
        frozenset(parts.plain), tuple(parts.literals), parts.nothing, parts.open, parts.nested, _shown(parameter, parts)
    )


@dataclass
class _Parts:
    plain: set[str] = field(default_factory=set)
    literals: list[Any] = field(default_factory=list)
    nothing: bool = False
    open: bool = False
    nested: ClassSource | None = None

    def add(self, node: ast.expr, module: Module, depth: int = 0) -> None:
        """Take in a part of a union."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            self.add(node.left, module, depth)
            self.add(node.right, module, depth)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.add(ast.parse(node.value, mode="eval").body, module, depth)
        elif isinstance(node, ast.Constant) and node.value is None:
            self.nothing = True
        elif isinstance(node, ast.Subscript):
            self._add_generic(node, module, depth)
        elif isinstance(node, ast.Name):
            self._add_name(node.id, module, depth)
        else:
            self.open = True

    def _add_generic(self, node: ast.Subscript, module: Module, depth: int) -> None:
        name = ast.unparse(node.value).rpartition(".")[2]
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            for item in inner:
                try:
                    self._add_literal(ast.literal_eval(item))
                except ValueError:
                    self.open = True
        elif name in ("Optional", "Union"):
            self.nothing |= name == "Optional"
            for item in inner:
                self.add(item, module, depth)
        else:
            self.open = True

    def _add_literal(self, value: Any) -> None:
        if value is None:
            self.nothing = True
        else:
            self.literals.append(value)

    def _add_name(self, name: str, module: Module, depth: int) -> None:
        if name in PLAIN:
            self.plain.add(name)
            return
        followed = name.startswith("_") or module.name.startswith(FOLLOWED)  # of lightning's names only the aliases
        found = look_up(module, name) if depth < 5 and followed else None
        statement = found[1] if found else None
        if found and isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            self.add(statement.value, found[0], depth + 1)
        elif found and isinstance(statement, ast.ClassDef) and self.nested is None:
            source = ClassSource(found[0], statement)
            self.nested = source if parameters(source) and not statement.bases else None
            self.open |= self.nested is None
        else:
            self.open = True


def _shown(parameter: Parameter, parts: _Parts) -> str:
    """The type for a reader: the values where there are only values, else the annotation in today's notation."""
    if not parts.open and not parts.nested:
        words = list(dict.fromkeys(str(value) for value in parts.literals)) + [
            name for name in PLAIN if name in parts.plain
        ]
        return " | ".join(words + (["null"] if parts.nothing else []))
    return _notation(parameter.type) if parameter.type else ""


def _notation(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value).rpartition(".")[2]
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name in ("Optional", "Union", "Literal"):
            words = [str(i.value) if name == "Literal" and isinstance(i, ast.Constant) else _notation(i) for i in inner]
            return " | ".join(words + (["null"] if name == "Optional" else []))
        return f"{name}[{', '.join(map(_notation, inner))}]"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return f"{_notation(node.left)} | {_notation(node.right)}"
    if isinstance(node, ast.Constant) and node.value is None:
        return "null"
    name = ast.unparse(node).strip("'\"")
    return name.strip("_").replace("_", " ").lower() if name.startswith("_") else name  # an alias within lightning
