"""Fields of a row. Each checks a value and returns it in the form that the task uses."""

from __future__ import annotations

import ast
import io
import itertools
import json
import math
import re
import tokenize
from dataclasses import dataclass
from typing import Any, Protocol


class RowError(ValueError):
    """The error of a value that breaks the schema; the reader adds the file and the row number."""


class CountError(RowError):
    """The error of a label that shows that the labels of all rows are wrong, so that the row cannot be left out."""


class Field(Protocol):
    """One field of a row: it checks a value and returns it for the task, or raises ``RowError`` with the reason."""

    def check(self, value: Any) -> Any:
        """Return the value in the form that the task uses."""

    def parse(self, text: str) -> Any:
        """Parse the value from a text table (CSV, TSV), where every value is text."""


@dataclass(frozen=True)
class Text:
    """A text that is not empty, unless ``allow_empty``."""

    allow_empty: bool = False

    def check(self, value: Any) -> str:
        """Return the text unchanged."""
        if not isinstance(value, str):
            raise RowError(f"must be text, not {kind(value)}")
        if not self.allow_empty and not value.strip():
            raise RowError("must not be empty")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowError(f"holds half a character (\\u{ord(value[error.start]):04x} at {error.start + 1})") from None
        return value

    def parse(self, text: str) -> str:
        """Return the text unchanged."""
        return text


@dataclass(frozen=True)
class Label:
    """A whole number from ``allowed``; the hub marks rows without a public label with -1."""

    allowed: tuple[int, ...] = (0, 1)

    def check(self, value: Any) -> int:
        """Return the number; see ``whole_number`` for the values that are one."""
        number = whole_number(value)
        if number is None:
            raise RowError(f"must be a whole number, not {kind(value)}")
        if number not in self.allowed:
            hint = " (-1 marks a row without a public label)" if number == -1 else ""
            raise RowError(f"is {number}, but must be one of {', '.join(map(str, self.allowed))}{hint}")
        return number

    def parse(self, text: str) -> str:
        """Return the text unchanged; ``check`` reads the number in it."""
        return text


@dataclass(frozen=True)
class TextLabel:
    """A label that is one of the texts ``allowed``, such as ``"1"`` or ``"A"``. Its value is its position there.

    The label may also be the same whole number, and may have white space around it: original releases differ in this.
    """

    allowed: tuple[str, ...]

    def check(self, value: Any) -> int:
        """Return the position of the label."""
        label = label_text(value)
        if label is None:
            raise RowError(f"must be text, not {kind(value)}")
        if label not in self.allowed:
            hint = " (an empty label marks a row without a public label)" if not label else ""
            raise RowError(f"is {value!r}, but must be one of {', '.join(map(repr, self.allowed))}{hint}")
        return self.allowed.index(label)

    def parse(self, text: str) -> str:
        """Return the text unchanged."""
        return text


@dataclass(frozen=True)
class Name:
    """The name of a choice: a text that is not empty, or a whole number, which becomes a text."""

    def check(self, value: Any) -> str:
        """Return the name as text."""
        number = None if isinstance(value, str) else label_text(value)
        return Text().check(value if number is None else number)

    def parse(self, text: str) -> str:
        """Return the text unchanged."""
        return text


@dataclass(frozen=True)
class Truth:
    """A truth value; the task uses 0 for false and 1 for true."""

    def check(self, value: Any) -> int:
        """Return 0 or 1."""
        if not isinstance(value, bool):
            raise RowError(f"must be true or false, not {kind(value)}")
        return int(value)

    def parse(self, text: str) -> Any:
        """Parse ``true`` or ``false`` in small or capital letters; a different text stays text."""
        return {"true": True, "false": False}.get(text.strip().lower(), text)


@dataclass(frozen=True)
class Texts:
    """A list of ``count`` texts that are not empty; without a count at least ``least`` texts."""

    count: int | None = None
    least: int = 1

    def check(self, value: Any) -> list[str]:
        """Return the list unchanged."""
        texts = _texts(value, "is")
        if self.count is not None and len(texts) != self.count:
            raise RowError(f"is a list of {len(texts)}, but must hold {self.count} texts")
        if len(texts) < self.least:
            raise RowError(f"is a list of {len(texts)}, but must hold at least {self.least} text(s)")
        return texts

    def parse(self, text: str) -> Any:
        """Parse a list in the syntax of JSON or Python. A different text stays text, and ``check`` refuses it."""
        return _json(text)


@dataclass(frozen=True)
class Missing:
    """An optional field; ``default`` is its value if it is missing."""

    field: Field
    default: Any = ""

    def check(self, value: Any) -> Any:
        """Check a value; null counts as missing."""
        return self.default if value is None else self.field.check(value)

    def parse(self, text: str) -> Any:
        """Parse the value with the field."""
        return self.field.parse(text)


@dataclass(frozen=True)
class LabelledTexts:
    """Choices with their labels, ``{"text": ["wet", "dry"], "label": ["A", "B"]}``: one label for each text.

    Labels are different letters or digits, as in ARC. ``least`` is the smallest number of choices. A list with an
    object for each choice, ``[{"text": "wet", "label": "A"}, ...]``, is the layout of the original releases.
    """

    least: int = 2

    def check(self, value: Any) -> dict[str, list[str]]:
        """Return the two lists; other entries of the object are removed."""
        if isinstance(value, list | tuple) and value and all(isinstance(entry, dict) for entry in value):
            value = {name: [entry.get(name) for entry in value] for name in ("text", "label")}
        if not isinstance(value, dict):
            raise RowError(f"must be an object with lists 'text' and 'label', not {kind(value)}")
        for name in ("text", "label"):
            if name not in value:
                raise RowError(f"has no list {name!r} (it has {', '.join(map(str, value)) or 'no entries'})")
        texts, labels = (_texts(value[name], f"has {name!r}, which is") for name in ("text", "label"))
        if len(texts) != len(labels):
            raise RowError(f"has {len(texts)} texts, but {len(labels)} labels")
        if len(texts) < self.least:
            raise RowError(f"offers {len(texts)} choice(s), but must offer at least {self.least}")
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise RowError(f"has the label {twice!r} more than once")
        return {"text": texts, "label": labels}

    def parse(self, text: str) -> Any:
        """Parse an object in the syntax of JSON or Python. A different text stays text, and ``check`` refuses it."""
        return _json(text)


def _texts(value: Any, verb: str) -> list[str]:
    """Return a list of texts that are not empty; ``verb`` begins the sentence of the error."""
    if not isinstance(value, list | tuple):
        raise RowError(f"{verb} {kind(value)}, but must be a list of texts")
    for number, entry in enumerate(value, start=1):
        try:
            Text().check(entry)
        except RowError as error:
            raise RowError(f"{verb} a list whose entry {number} {error}") from None
    return list(value)


def _json(text: str) -> Any:
    """Parse JSON, or a list or object in Python's syntax, which pandas writes into CSV; else return the text.

    >>> _json('["ice"]'), _json("['ice', 'fire']"), _json("['ice' 'fire']"), _json("[ice]")
    (['ice'], ['ice', 'fire'], "['ice' 'fire']", '[ice]')
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text.strip())
        tokens = [token.type for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline)]
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return text
    # NumPy writes no commas between the texts of a list, and Python would join two such texts to one
    joined = (tokenize.STRING, tokenize.STRING) in itertools.pairwise(tokens)
    return value if isinstance(value, list | dict) and not joined else text


def whole_number(value: Any) -> int | None:
    """Return the whole number that a value is, None if it is no whole number.

    A column of whole numbers in which one value is missing holds fractions (0.0, 1.0) in pandas, and in text tables
    that pandas writes. Original releases write numbers as texts, some of them with a line end.

    >>> [whole_number(value) for value in (1, 1.0, "1", "1.0", " 1\\n", 1.5, float("nan"), True, "one", "1_0")]
    [1, 1, 1, 1, 1, None, None, None, None, None]
    """
    if isinstance(value, str):
        found = re.fullmatch(r"([-+]?[0-9]{1,18})(?:\.0+)?", value.strip())
        return int(found[1]) if found else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def label_text(value: Any) -> str | None:
    """Return a label as a text without white space around it, None if it is neither text nor a whole number.

    >>> [label_text(value) for value in ("1\\n", "B", 1, 1.0, "1.0", None)]
    ['1', 'B', '1', '1', '1', None]
    """
    number = whole_number(value)
    if number is not None:
        return str(number)
    return value.strip() if isinstance(value, str) else None


def fold(text: str) -> str:
    """Return a text in small letters with single spaces, so that groups do not depend on them.

    >>> fold("Dry  a CUP ")
    'dry a cup'
    """
    return " ".join(text.lower().split())


def kind(value: Any) -> str:
    """Name the type of a value as JSON would."""
    names = {
        bool: "true/false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    if isinstance(value, list | dict) and not value:
        return f"{names[type(value)]} that is empty"
    if isinstance(value, float) and math.isnan(value):
        return "missing (NaN)"
    return "missing (null)" if value is None else names.get(type(value), type(value).__name__)
