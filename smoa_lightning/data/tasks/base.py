"""What a task is made of: schema, protocols, splits. Data and small functions, no network, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.tasks.examples import ChoiceExample, Message, ReplyExample
from smoa_lightning.data.tasks.fields import (
    Field,
    Label,
    LabelledTexts,
    Missing,
    RowError,
    Text,
    TextLabel,
    Texts,
    Truth,
    fold,
    kind,
)

__all__ = [
    "ChoiceExample", "Example", "Field", "Generation", "Label", "LabelledTexts", "Likelihood", "Message", "Missing",
    "Protocol", "ReplyExample", "Row", "RowError", "Task", "Text", "TextLabel", "Texts", "Truth", "fold", "kind",
]  # fmt: skip

Row = dict[str, Any]
Example = ChoiceExample | ReplyExample
ProtocolName = Literal["likelihood", "generation"]


@dataclass(frozen=True)
class Likelihood:
    """Score each choice by its log-likelihood after the prompt, and take the best; trained on is the right choice.

    Args:
        example: Row -> item.
        metric: The primary metric: ``acc`` (sum), ``acc_norm`` (per byte) or ``acc_token``. It selects as well.
    """

    example: Callable[[Row], ChoiceExample]
    metric: str = "acc"
    name: ProtocolName = "likelihood"

    @property
    def selection_metric(self) -> str:
        """The metric that selects the checkpoint."""
        return self.metric


@dataclass(frozen=True)
class Generation:
    """Let the model write a reply; look for the answer in it, or compare it as a text with the gold reply.

    Args:
        example: Row -> item.
        metric: The primary metric: ``acc`` where ``answer`` is given, else ``perplexity`` or a metric of texts.
        answer: Reply -> the answer in it, or None where it holds none; None: replies are compared as texts.
        max_new_tokens: Longest reply in tokens.
        stop: Texts that end a reply; they and what follows do not belong to it.
        selection_metric: The metric that selects the checkpoint. ``nll`` and ``perplexity`` are those of the gold
            reply and need no generation, which would cost more than training does.
        chat_template: Whether the prompt is rendered by the tokenizer's chat template where it has one.
    """

    example: Callable[[Row], ReplyExample]
    metric: str
    answer: Callable[[str], str | None] | None = None
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ("\n",)
    selection_metric: str = "nll"
    chat_template: bool = False
    name: ProtocolName = "generation"


Protocol = Likelihood | Generation


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
        group: Row -> key; rows with one key never stand on both sides of the hold-out.
        licence: Licence of the data.
        reference: Paper (arXiv id or address).
        train_split: Split to train on, minus the hold-out.
        report_split: Split on which results are reported; its rows never select anything.
        splits: All splits that the data set has with labels.
        rule: Checks what must hold between the fields of a checked row; raises ``RowError``. None: nothing more.
        likelihood: The protocol of scored choices, where the task has it.
        generation: The protocol of written replies, where the task has it. One of the two at least is given; where
            both are, ``likelihood`` is the default.
        normalise: Brings a raw row of another known layout to the schema's; raises ``RowError``. None: only one layout.
        expand: Checked row -> the rows it stands for (a dialogue: one for each reply). None: itself.
        read_text: Numbered lines of a ``.txt`` file -> (number of a row's first line, raw row), where the data set
            has such a layout; raises ``RowError`` at the line that it can not read. None: text files are refused.
        fields: Field -> its name in the rows, or the names of several columns that make up a list of texts; see
            ``task_with_fields``. A field that is not named here keeps its name.
    """

    name: str
    version: int
    hub_repository: str | None
    hub_revision: str | None
    schema: Mapping[str, Field]
    group: Callable[[Row], str]
    licence: str
    reference: str
    hub_config: str | None = None
    train_split: str = "train"
    report_split: str = "validation"
    splits: Sequence[str] = ("train", "validation", "test")
    rule: Callable[[Row], None] | None = None
    likelihood: Likelihood | None = None
    generation: Generation | None = None
    normalise: Callable[[Row], Row] | None = None
    expand: Callable[[Row], list[Row]] | None = None
    read_text: Callable[[Iterable[tuple[int, str]]], Iterator[tuple[int, Row]]] | None = None
    fields: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols that the task has, the default first."""
        return tuple(protocol for protocol in (self.likelihood, self.generation) if protocol is not None)

    def protocol(self, name: str | None = None) -> Protocol:
        """Return a protocol by its name, ``None`` the default.

        Raises:
            UserError: the task has no such protocol.
        """
        names = [protocol.name for protocol in self.protocols]
        if name is None:
            return self.protocols[0]
        if name not in names:
            raise UserError(f"data.protocol: task {self.name!r} has no protocol {name!r}; it has {' and '.join(names)}")
        return self.protocols[names.index(name)]

    def check(self, row: Any) -> Row:
        """Return the row's fields as the schema wants them.

        Raises:
            RowError: with the field and the reason.
        """
        if not isinstance(row, dict):
            raise RowError(f"the row must be an object with fields {', '.join(self.schema)}, not {kind(row)}")
        row = self._renamed(row) if self.fields else row
        if self.normalise is not None:
            row = self.normalise(row)
        checked: Row = {}
        for name, wanted in self.schema.items():
            if name not in row:
                if isinstance(wanted, Missing):
                    checked[name] = wanted.default
                    continue
                raise RowError(f"field {name!r} is missing (the row has {', '.join(map(str, row)) or 'no fields'})")
            try:
                checked[name] = wanted.check(row[name])
            except RowError as error:
                raise RowError(f"field {name!r} {error}") from None
        if self.rule is not None:
            self.rule(checked)
        return checked

    def rows_of(self, raw: Any) -> list[Row]:
        """Return the checked rows that a raw row stands for: itself, or of a dialogue one for each reply.

        Raises:
            RowError: with the field and the reason.
        """
        row = self.check(raw)
        return [row] if self.expand is None else self.expand(row)

    def parse(self, column: str, text: str) -> Any:
        """Read a value from a column of a text table (CSV, TSV), as the field does that takes it."""
        for name, theirs in self.fields.items():
            if column == theirs:
                return self.schema[name].parse(text)
            if column in theirs and not isinstance(theirs, str):
                return text
        return self.schema[column].parse(text) if column in self.schema and column not in self.fields else text

    def _renamed(self, row: Row) -> Row:
        """Return the row with the fields' own names; a column that is named for one stands for no other."""
        taken = {
            column for theirs in self.fields.values() for column in ([theirs] if isinstance(theirs, str) else theirs)
        }
        renamed = {name: value for name, value in row.items() if name not in taken}
        for name, theirs in self.fields.items():
            columns = [theirs] if isinstance(theirs, str) else list(theirs)
            if absent := next((column for column in columns if column not in row), None):
                raise RowError(
                    f"field {absent!r}, which data.fields names for {name!r}, is missing"
                    f" (the row has {', '.join(map(str, row)) or 'no fields'})"
                )
            renamed[name] = row[theirs] if isinstance(theirs, str) else [row[column] for column in columns]
        return renamed
