"""What a task is made of: checked fields, examples, the task itself. Data and small functions, no network, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class RowError(ValueError):
    """A value of a row that breaks the schema; the reader adds the file and the row number."""


class Field(Protocol):
    """One field of a row: checks a value and returns it as the task uses it, or raises ``RowError`` with the reason."""

    def check(self, value: Any) -> Any:
        """Return the value as the task uses it."""

    def parse(self, text: str) -> Any:
        """Read the value from a text table (CSV, TSV), where every value is text."""


@dataclass(frozen=True)
class Text:
    """A text that is not empty (``allow_empty`` lifts that)."""

    allow_empty: bool = False

    def check(self, value: Any) -> str:
        """Return the text unchanged."""
        if not isinstance(value, str):
            raise RowError(f"must be text, not {_kind(value)}")
        if not self.allow_empty and not value.strip():
            raise RowError("must not be empty")
        return value

    def parse(self, text: str) -> str:
        """Return the text unchanged."""
        return text


@dataclass(frozen=True)
class Label:
    """A whole number out of ``allowed``; the Hub marks rows without a public label with -1."""

    allowed: tuple[int, ...] = (0, 1)

    def check(self, value: Any) -> int:
        """Return the number."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise RowError(f"must be a whole number, not {_kind(value)}")
        if value not in self.allowed:
            hint = " (-1 marks a row without a public label)" if value == -1 else ""
            raise RowError(f"is {value}, but must be one of {', '.join(map(str, self.allowed))}{hint}")
        return value

    def parse(self, text: str) -> Any:
        """Read a whole number; anything else stays text, so that ``check`` names it."""
        try:
            return int(text)
        except ValueError:
            return text


@dataclass(frozen=True)
class TextLabel:
    """A label written as one of ``allowed`` texts, such as ``"1"`` or ``"A"``; used as its position among them."""

    allowed: tuple[str, ...]

    def check(self, value: Any) -> int:
        """Return the position of the label."""
        if not isinstance(value, str):
            raise RowError(f"must be text, not {_kind(value)}")
        if value not in self.allowed:
            hint = " (an empty one marks a row without a public label)" if not value.strip() else ""
            raise RowError(f"is {value!r}, but must be one of {', '.join(map(repr, self.allowed))}{hint}")
        return self.allowed.index(value)

    def parse(self, text: str) -> str:
        """Return the text unchanged."""
        return text


def _kind(value: Any) -> str:
    """Name the type of a value as JSON would."""
    names = {
        bool: "true/false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return "missing (null)" if value is None else names.get(type(value), type(value).__name__)


Row = dict[str, Any]


@dataclass(frozen=True)
class ChoiceExample:
    """An item with several answers of which one is right.

    ``prompt`` is one text, or one text for each choice (partial evaluation, as in WinoGrande, scores one continuation
    after different prompts). A choice carries its delimiter: ``" Paris"``, not ``"Paris"``.
    """

    prompt: str | tuple[str, ...]
    choices: tuple[str, ...]
    label: int

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The (prompt, response) pairs to be scored, one a choice."""
        prompts = (self.prompt,) * len(self.choices) if isinstance(self.prompt, str) else self.prompt
        return list(zip(prompts, self.choices, strict=True))

    @property
    def target(self) -> tuple[str, str]:
        """The (prompt, response) pair to be trained on: the right one."""
        return self.pairs[self.label]

    @property
    def num_bytes(self) -> list[int]:
        """UTF-8 bytes of each choice without the one space that delimits it from the prompt."""
        return [len(choice.removeprefix(" ").encode()) for choice in self.choices]


@dataclass(frozen=True)
class Task:
    """A data set, how its rows become examples, and how it is reported.

    Args:
        name: Name in ``data.task`` and in the registry.
        version: Raised whenever prompt, splits or metric change, so that scores of two versions are not compared.
        hub_repository: Repository on the hub, or None.
        hub_revision: A revision that needs no loading script; a commit, so that the rows can not change.
        hub_config: Name of the configuration in the repository, where it has several.
        schema: Field name -> field. Other fields of a row are dropped.
        example: Row -> example.
        group: Row -> key; rows with one key never stand on both sides of the hold-out.
        metric: The primary metric: ``acc``, ``acc_norm`` (bytes) or ``acc_token``.
        licence: Licence of the data.
        reference: Paper (arXiv id or address).
        train_split: Split to train on, minus the hold-out.
        report_split: Split on which results are reported; its rows never select anything.
        splits: All splits that the data set has with labels.
    """

    name: str
    version: int
    hub_repository: str | None
    hub_revision: str | None
    schema: Mapping[str, Field]
    example: Callable[[Row], ChoiceExample]
    group: Callable[[Row], str]
    metric: str
    licence: str
    reference: str
    hub_config: str | None = None
    train_split: str = "train"
    report_split: str = "validation"
    splits: Sequence[str] = ("train", "validation", "test")

    def check(self, row: Any) -> Row:
        """Return the row's fields as the schema wants them.

        Raises:
            RowError: with the field and the reason.
        """
        if not isinstance(row, dict):
            raise RowError(f"the row must be an object with fields {', '.join(self.schema)}, not {_kind(row)}")
        checked: Row = {}
        for name, field in self.schema.items():
            if name not in row:
                raise RowError(f"field {name!r} is missing (the row has {', '.join(map(str, row)) or 'no fields'})")
            try:
                checked[name] = field.check(row[name])
            except RowError as error:
                raise RowError(f"field {name!r} {error}") from None
        return checked
