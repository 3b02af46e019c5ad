"""The parts of a task: schema, protocols, splits. Data and small functions, no network, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.tasks.examples import ChoiceExample, ImageExample, LabelledExample, Message, ReplyExample
from smoa_lightning.data.tasks.fields import (
    CountError,
    Field,
    Label,
    LabelledTexts,
    Missing,
    Name,
    RowError,
    Text,
    TextLabel,
    Texts,
    Truth,
    fold,
    kind,
    whole_number,
)

__all__ = [
    "ChoiceExample", "Classification", "CountError", "Example", "Field", "Generation", "ImageExample", "Label",
    "LabelledExample", "LabelledTexts", "Likelihood", "Message", "Missing", "Name", "Protocol", "Regression", "Remarks",
    "ReplyExample", "Row", "RowError", "Task", "Text", "TextLabel", "Texts", "Truth", "fold", "kind", "whole_number",
]  # fmt: skip

Row = dict[str, Any]
Example = ChoiceExample | ReplyExample | LabelledExample | ImageExample
ProtocolName = Literal["likelihood", "generation", "classification", "regression"]


@dataclass(frozen=True)
class Likelihood:
    """Predict the choice with the best log-likelihood after the prompt. Training uses the right choice.

    Args:
        example: Row -> item.
        metric: The primary metric, which also selects: ``acc`` (sum), ``acc_norm`` (per byte) or ``acc_token``.
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
    """Let the model generate a reply, and find the answer in it or compare it as a text with the gold reply.

    Args:
        example: Row -> item.
        metric: The primary metric: ``acc`` with ``answer``, else ``perplexity`` or a metric of texts.
        answer: Reply -> the answer in it, or None if there is no answer. None: replies are compared as texts.
        max_new_tokens: Longest reply in tokens.
        stop: Texts that end a reply; the reply is the text before them.
        selection_metric: The metric that selects the checkpoint. ``nll`` and ``perplexity`` of the gold reply need no
            generation, which costs more time than training.
        code_bits: Gold reply -> the bits of a random code in it; then ``stored_bits`` says how many of them the model
            knows. None: replies are no random codes.
        chat_template: Whether prompts use the tokenizer's chat template, if it has one.
        agrees: Whether an answer is right: (answer, label) -> bool. None: if it equals the label.
        num_beams: Width of the beam search; 1 is greedy.
        rules: Name of published rules that the protocol follows, see ``published``.
    """

    example: Callable[[Row], ReplyExample]
    metric: str
    answer: Callable[[str], str | None] | None = None
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ("\n",)
    selection_metric: str = "nll"
    code_bits: Callable[[str], float] | None = None
    chat_template: bool = False
    agrees: Callable[[str, str], bool] | None = None
    num_beams: int = 1
    rules: str | None = None
    name: ProtocolName = "generation"

    def is_right(self, answer: str | None, label: str) -> bool:
        """Whether an answer is right; a reply without an answer is wrong."""
        return answer is not None and (answer == label if self.agrees is None else self.agrees(answer, label))


@dataclass(frozen=True)
class Classification:
    """Predict the class of a text, of a pair or of an image with a classification head on the model.

    Args:
        example: Row -> item, with the number of its class.
        names: The names of the classes, in the order of the labels.
        metric: The primary metric, which also selects: ``acc``, ``mcc``, or with two classes ``f1`` of the second one.
        inputs: ``texts``, or ``images``, which make an ``ImageExample``.
    """

    example: Callable[[Row], LabelledExample | ImageExample]
    names: tuple[str, ...]
    metric: str = "acc"
    name: ProtocolName = "classification"
    inputs: Literal["texts", "images"] = "texts"

    @property
    def selection_metric(self) -> str:
        """The metric that selects the checkpoint."""
        return self.metric


def reads_images(protocol: Protocol) -> bool:
    """Whether the rows of a protocol are images."""
    return isinstance(protocol, Classification) and protocol.inputs == "images"


@dataclass(frozen=True)
class Regression:
    """Predict a number for a text or a pair with a head of one output on the model.

    Args:
        example: Row -> item, with its number.
        names: The name of the number.
        metric: The primary metric, which also selects: ``pearson`` or ``spearman``.
    """

    example: Callable[[Row], LabelledExample]
    names: tuple[str] = ("score",)
    metric: str = "pearson"
    name: ProtocolName = "regression"

    @property
    def selection_metric(self) -> str:
        """The metric that selects the checkpoint."""
        return self.metric


Labelling = Classification | Regression
Protocol = Likelihood | Generation | Labelling


@dataclass(frozen=True)
class Remarks:
    """What a task says about all rows of a split.

    Args:
        count: Checked row -> what is counted in it.
        say: What was counted, with its numbers -> a sentence without full stop, or None.
    """

    count: Callable[[Row], Iterable[str]]
    say: Callable[[Mapping[str, int]], str | None]


@dataclass(frozen=True)
class Task:
    """A data set with its protocols: rows become examples, and the examples are scored and reported.

    Args:
        name: Name in ``data.task`` and in the registry.
        version: Raised with each change of prompt, splits or metric, so that scores of two versions are not compared.
        hub_repository: Repository on the hub, or None.
        hub_revision: A revision without a loading script; a commit, so that the rows cannot change.
        hub_config: Name of the configuration in the repository, if it has several.
        schema: Field name -> field. Other fields of a row are removed.
        group: Checked row, before ``expand`` -> key. The hold-out never separates rows with the same key, and standard
            errors take them as one unit.
        licence: Licence of the data.
        reference: Paper (arXiv id or address).
        train_split: Split of the training rows and of the hold-out.
        report_split: Split of the report rows, which never select anything.
        splits: All splits of the data set that have labels.
        rule: Checks the fields of a checked row against each other; raises ``RowError``. None: no such check.
        likelihood: The protocol of scored choices, or None.
        generation: The protocol of generated replies, or None.
        labelling: The protocol of a new head on the model, for classes or a number, or None. A task has at least one
            protocol, and the first of these three is the default.
        normalise: Changes a raw row of a different known layout to that of the schema; raises ``RowError``. None: there
            is only one layout.
        reads: Columns that ``normalise`` or ``expand`` read in addition to those of the schema.
        expand: Checked row -> the rows that it becomes (a dialogue: one for each reply). None: only itself.
        read_text: Numbered lines of a ``.txt`` file -> (number of a row's first line, raw row), if the data set has
            such a layout; raises ``RowError`` at a line that it cannot read. None: text files are refused.
        remarks: What is counted over all rows of a split, and said about them; None: nothing.
        options: Further settings that decide how rows are read.
        fields: Field -> its name in the rows, or the names of several columns for a list of texts; see
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
    labelling: Labelling | None = None
    normalise: Callable[[Row], Row] | None = None
    reads: Sequence[str] = ()
    expand: Callable[[Row], list[Row]] | None = None
    read_text: Callable[[Iterable[tuple[int, str]]], Iterator[tuple[int, Row]]] | None = None
    remarks: Remarks | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols that the task has, the default first."""
        known = self.likelihood, self.generation, self.labelling
        return tuple(protocol for protocol in known if protocol is not None)

    def protocol(self, name: str | None = None) -> Protocol:
        """Return a protocol by its name; None means the default.

        Raises:
            UserError: the task has no such protocol.
        """
        names = [protocol.name for protocol in self.protocols]
        if name is None:
            return self.protocols[0]
        if name not in names:
            raise UserError(
                f"data.protocol: task {self.name!r} has no protocol {name!r}; it has {' and '.join(names)}."
            )
        return self.protocols[names.index(name)]

    def check(self, row: Any) -> Row:
        """Return the fields of a row in the form of the schema.

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
                raise RowError(self._missing(name, row))
            try:
                checked[name] = wanted.check(row[name])
            except RowError as error:
                raise type(error)(f"field {name!r} {error}") from None
        if self.rule is not None:
            self.rule(checked)
        return checked

    def _missing(self, name: str, row: Row) -> str:
        """Return the message about a missing field, with the fields of the task."""
        text = f"field {name!r} is missing (the row has {', '.join(map(str, row)) or 'no fields'})"
        needed = [field for field, wanted in self.schema.items() if not isinstance(wanted, Missing)]
        optional = [field for field in self.schema if field not in needed]
        more = f" and, if there is one, {' and '.join(optional)}" if optional else ""
        text += f"; task {self.name!r} reads {', '.join(needed)}{more}, and data.fields maps other names"
        return (
            text if self.hub_repository is None else f"{text}; the tasks choice, instruction and chat are for own rows"
        )

    def rows_of(self, raw: Any) -> list[Row]:
        """Return the checked rows that a raw row becomes: itself, or for a dialogue one row for each reply.

        Raises:
            RowError: with the field and the reason.
        """
        return self.expanded(self.check(raw))

    def expanded(self, checked: Row) -> list[Row]:
        """Return the rows that a checked row becomes."""
        return [checked] if self.expand is None else self.expand(checked)

    def unread(self, raw: Row) -> set[str]:
        """Return the columns of a raw row that hold a value which nothing reads, and such parts of a field's value."""
        own = {name for name in (*self.schema, *self.reads) if name not in self.fields} | self._taken
        found = {str(name) for name, value in raw.items() if name not in own and not _is_empty(value)} - {""}
        for name, wanted in self.schema.items():
            if parts := getattr(wanted, "unread", None):
                found |= {f"{name}.{part}" for part in parts(raw.get(str(self.fields.get(name, name))))}
        return found

    def parse(self, column: str, text: str) -> Any:
        """Parse a value of a text table (CSV, TSV) with the field of its column."""
        for name, theirs in self.fields.items():
            if column == theirs:
                return self.schema[name].parse(text)
            if column in theirs and not isinstance(theirs, str):
                return text
        return self.schema[column].parse(text) if column in self.schema and column not in self.fields else text

    @cached_property
    def _taken(self) -> set[str]:
        """The columns that ``fields`` names."""
        return {
            column for theirs in self.fields.values() for column in ([theirs] if isinstance(theirs, str) else theirs)
        }

    def _renamed(self, row: Row) -> Row:
        """Return the row with the names of the task's fields; a column that ``fields`` names has no other use."""
        taken = self._taken
        renamed = {name: value for name, value in row.items() if name not in taken}
        for name, theirs in self.fields.items():
            columns = [theirs] if isinstance(theirs, str) else list(theirs)
            if columns == [name] and name not in row:
                continue  # the same name, so the field is missing as it is without data.fields
            if absent := next((column for column in columns if column not in row), None):
                raise RowError(
                    f"field {absent!r}, which data.fields names for {name!r}, is missing"
                    f" (the row has {', '.join(map(str, row)) or 'no fields'})"
                )
            renamed[name] = row[theirs] if isinstance(theirs, str) else [row[column] for column in columns]
        return renamed


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)
