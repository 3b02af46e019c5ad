"""List every message that a user can see: ``python -m tools.messages [FOLDER ...]``.

Messages are the texts given to errors, prints, logs and help of the package. ``tests/test_words.py`` reads the list and
refuses words that a reader with school English does not know.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "smoa_lightning"
ERRORS = ("Error", "Exception", "Warning")  # endings of the names of classes that carry a message
CALLS = {"print", "warn", "info", "warning", "error", "debug", "add_argument", "PlainParser", "describe_change"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Message(NamedTuple):
    """A text and its place in the code; values of the run time are shown as ``{name}``."""

    file: str
    line: int
    text: str


def messages(folder: Path = PACKAGE) -> Iterator[Message]:
    """Yield every message of the Python files of a folder."""
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(folder.parent).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _carries_message(node.func):
                for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                    text = _text(argument)
                    if " " in text.strip():
                        yield Message(name, argument.lineno, " ".join(text.split()))


def docstrings(folder: Path = PACKAGE) -> Iterator[Message]:
    """Yield every docstring of the Python files of a folder, without its examples."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
                line = getattr(node, "lineno", 1)
                yield Message(path.relative_to(folder.parent).as_posix(), line, text.split("\n>>>")[0])


def _carries_message(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in CALLS or name.endswith(ERRORS)


def _text(node: ast.expr) -> str:
    """Return the text of an expression; an f-string keeps the names of its values, a sum of texts is joined."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _text(part) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore[attr-defined]
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return _text(node.body) + " | " + _text(node.orelse) if isinstance(node, ast.IfExp) else ""


def main(folders: list[str]) -> None:
    """Print the list."""
    for folder in [Path(name).resolve() for name in folders] or [PACKAGE]:
        for message in messages(folder):
            print(f"{message.file}:{message.line}: {message.text}")


if __name__ == "__main__":
    main(sys.argv[1:])
