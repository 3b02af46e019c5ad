"""Tasks for your own rows: ``choice`` and ``instruction``; and tasks with the field names of your rows.

These tasks have no repository on the hub: name one with ``data.repository``, or files with ``data.path``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.tasks import instruct
from smoa_lightning.data.tasks.answers import choice_word
from smoa_lightning.data.tasks.base import (
    ChoiceExample,
    CountError,
    Generation,
    Likelihood,
    Message,
    Missing,
    Remarks,
    ReplyExample,
    Row,
    RowError,
    Task,
    Text,
    Texts,
    fold,
    kind,
    whole_number,
)

# ---- the field names of your rows


def task_with_fields(task: Task, fields: Mapping[str, str | Sequence[str]] | None) -> Task:
    """Return the task for rows with different names of its fields.

    Args:
        task: The task.
        fields: Field of the task -> its name in the rows. For a field of several texts also a list of names, one for
            each text. Other fields keep their names. A column that is named here has no other use.

    Raises:
        UserError: a field that the task does not have; a list for a field of a single value.

    >>> task = task_with_fields(CHOICE, {"prompt": "q", "choices": ["right", "wrong"], "label": "key"})
    >>> task.check({"q": "Hot?", "right": "fire", "wrong": "ice", "key": 0})
    {'prompt': 'Hot?', 'choices': ['fire', 'ice'], 'label': 0, 'labels': ()}
    """
    for own, theirs in (fields or {}).items():
        if own not in task.schema:
            raise UserError(
                f"data.fields: task {task.name!r} has no field {own!r};"
                f" did you mean {nearest(own, task.schema)}? (The task's name comes first, the row's name second.)"
            )
        field = task.schema[own]
        several = isinstance(field.field if isinstance(field, Missing) else field, Texts)
        names = [theirs] if isinstance(theirs, str) else list(theirs)
        if not isinstance(theirs, str) and not several:
            raise UserError(f"data.fields.{own}: must be one name, not a list, since the field holds a single value.")
        if not names or not all(isinstance(name, str) and name for name in names):
            raise UserError(f"data.fields.{own}: must be the name of a field of the rows, but is {theirs!r}.")
    named = {own: theirs if isinstance(theirs, str) else tuple(theirs) for own, theirs in (fields or {}).items()}
    return replace(task, fields=named) if named else task


# ---- choice


@dataclass(frozen=True)
class ChoiceLabel:
    """The label of the right choice: a whole number from 0 on, or a text, see ``choice_position``."""

    def check(self, value: Any) -> int | str:
        """Return the label; a number such as 1.0, which pandas writes if a label is missing, becomes a whole number."""
        if isinstance(value, float) and (number := whole_number(value)) is not None:
            return number
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise RowError(f"must be a whole number or text, not {kind(value)}")
        if isinstance(value, str) and not value.strip():
            raise RowError("must not be empty")
        return value

    def parse(self, text: str) -> str:
        """Return the text unchanged."""
        return text


MOST_CHOICES = 26


def with_first_label(task: Task, first: int) -> Task:
    """Return the task ``choice`` for rows whose labels are numbers from ``first`` on; 0 changes nothing.

    Each row without ``labels`` gets the numbers as the names of its choices. So a label outside of them is an error,
    and the label 0 is an error even with ``bad_rows: skip``.

    >>> task = with_first_label(CHOICE, 1)
    >>> choice_position(task.check({"prompt": "Hot?", "choices": ["fire", "ice"], "label": "1"}))
    0
    """
    if not first:
        return task

    def named(row: Row) -> Row:
        choices = row.get("choices")
        if row.get("labels") or not isinstance(choices, list | tuple):
            return row
        if whole_number(row.get("label")) == 0:
            raise CountError("field 'label' is 0, but data.first_label is 1: set data.first_label to 0")
        return {**row, "labels": [str(first + number) for number in range(len(choices))]}

    return replace(task, normalise=named, options={**task.options, "first_label": first})


def choice_counts(row: Row) -> list[str]:
    """Count the labels that are positions, and those that are 0."""
    number = None if row["labels"] or row["label"] in row["choices"] else whole_number(row["label"])
    return [] if number is None else ["positions"] + ["zeros"] * (number == 0)


def choice_remark(counts: Mapping[str, int]) -> str | None:
    """Return how labels were read that may count from 1: no label is 0, and none is too large."""
    if not counts.get("positions") or counts.get("zeros"):
        return None
    return (
        f"no label of {counts['positions']} rows is 0; they were read as positions from 0 on: if they count from 1, "
        "set data.first_label to 1"
    )


def choice_position(row: Row) -> int:
    """Return the position of the right choice, from 0 on.

    With ``labels`` (the names of the choices), the label is one of them. Without them it is a position from 0 on, the
    text of one choice, or a capital letter, A for the first choice.

    Raises:
        RowError: the label names no choice, it is the text of two choices, or it has two meanings.

    >>> choices = {"choices": ["ice", "fire"], "labels": []}
    >>> [choice_position({**choices, "label": label}) for label in (1, "1", "fire", "B")]
    [1, 1, 1, 1]
    >>> choice_position({**choices, "labels": ["1", "2"], "label": "1"})
    0
    """
    choices, label, labels = row["choices"], row["label"], row["labels"]
    named = str(label).strip()
    if "." in named and named not in (*labels, *choices) and (number := whole_number(named)) is not None:
        named = str(number)  # pandas writes 1.0 if a label is missing
    if labels:
        if named not in labels:
            raise RowError(f"field 'label' is {label!r}, but the labels are {', '.join(map(repr, labels))}")
        return int(labels.index(named))
    position = None
    if isinstance(label, int) or named.isdecimal():
        position = whole_number(named)
        if position == len(choices) and label not in choices:
            raise CountError(
                f"field 'label' is {label!r}, but the {len(choices)} choices count from 0 to {position - 1} (or from A"
                f" on); if the labels of your file count from 1, add a field 'labels' such as {_names(position)}, or"
                " set data.first_label to 1"
            )
    elif len(named) == 1 and "A" <= named <= "Z":
        position = ord(named) - ord("A")
    if isinstance(label, str) and (count := choices.count(label)):
        if count > 1:
            raise RowError(f"field 'label' is {label!r}, which is the text of {count} choices")
        if position not in (None, choices.index(label)) and position < len(choices):
            raise RowError(
                f"field 'label' is {label!r}, which is the text of choice {choices.index(label) + 1} and names choice"
                f" {position + 1}; name the choices in a field 'labels'"
            )
        return int(choices.index(label))
    if position is None:
        raise RowError(f"field 'label' is {label!r}, but must be a position, a letter or the text of a choice")
    if not 0 <= position < len(choices):
        raise RowError(
            f"field 'label' is {label!r}, but the {len(choices)} choices count from 0 to {len(choices) - 1}"
            " (or from A on); give different names of the choices in a field 'labels'"
        )
    return position


def _names(count: int) -> str:
    return str([str(number) for number in range(1, count + 1)])


def choice_rule(row: Row) -> None:
    """Refuse a label that names no choice, and labels that do not match the choices.

    Raises:
        RowError: names the field and its value.
    """
    labels = row["labels"]
    if len(row["choices"]) > MOST_CHOICES:
        raise RowError(f"field 'choices' offers {len(row['choices'])} choices, but at most {MOST_CHOICES} are allowed")
    if labels and (len(labels) != len(row["choices"]) or len(set(labels)) != len(labels)):
        raise RowError(f"field 'labels' must name each of the {len(row['choices'])} choices once, but is {labels}")
    choice_position(row)


def choice_example(row: Row) -> ChoiceExample:
    r"""Return the item: the unchanged prompt, and each choice after a space.

    If the prompt ends in white space, no space is added.

    >>> choice_example({"prompt": "Hot is", "choices": ["ice", "fire"], "label": 1, "labels": []})
    ChoiceExample(prompt='Hot is', choices=(' ice', ' fire'), label=1)
    """
    prompt = row["prompt"]
    between = "" if prompt[-1:].isspace() else " "
    return ChoiceExample(prompt, tuple(between + choice.strip() for choice in row["choices"]), choice_position(row))


def choice_instruction(row: Row) -> ReplyExample:
    """Return the item of the generation protocol: an instruction with the words of LLM-Adapters for ARC."""
    return instruct.question(row["prompt"].strip(), row["choices"], choice_position(row))


def prompt_group(row: Row) -> str:
    """Return the prompt in small letters with single spaces."""
    return fold(row["prompt"])


CHOICE = Task(
    name="choice",
    version=1,
    hub_repository=None,
    hub_revision=None,
    schema={
        "prompt": Text(),
        "choices": Texts(least=2),
        "label": ChoiceLabel(),
        "labels": Missing(Texts(), default=()),
    },
    likelihood=Likelihood(choice_example),
    generation=Generation(
        choice_instruction,
        "acc",
        choice_word(f"answer{number}" for number in range(1, MOST_CHOICES + 1)),
        max_new_tokens=24,
        selection_metric="acc",
    ),
    group=prompt_group,
    rule=choice_rule,
    remarks=Remarks(choice_counts, choice_remark),
    licence="that of the rows",
    reference="rows of one's own",
)

# ---- instruction


def instruction_example(row: Row) -> ReplyExample:
    """Return the item with Alpaca's prompt; in a chat template, instruction and input are the user's message."""
    said = "\n\n".join(part for part in (row["instruction"].strip(), row["input"].strip()) if part)
    return ReplyExample(
        instruct.alpaca(row["instruction"], row["input"]), (), row["output"].strip(), None, (Message("user", said),)
    )


INSTRUCTION = Task(
    name="instruction",
    version=1,
    hub_repository=None,
    hub_revision=None,
    schema={"instruction": Text(), "input": Missing(Text(allow_empty=True)), "output": Text()},
    generation=Generation(instruction_example, "perplexity", max_new_tokens=128, stop=()),
    group=instruct.commonsense_group,
    licence="that of the rows",
    reference="rows of one's own",
)
