"""Prompts and conversations for a reply, from the command line or from the rows of a file; no torch."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.rows.readers import read_file
from smoa_lightning.data.tasks import CHAT, Message, Row, RowError, Text

REPLY, OTHER_REPLY = "reply", "reply_against"  # keys that are added to a row
PROMPT, MESSAGES, SYSTEM = "prompt", "messages", "system"


@dataclass(frozen=True)
class Prompt:
    """What a reply is generated for: one text, or messages of which the last is the user's.

    Args:
        place: Its name in errors, such as ``prompt 1`` or ``prompts.jsonl, row 3``.
        text: The text, if there are no messages.
        messages: The messages.
        system: The system text of its row; None: the row has none.
        row: The row of the file, with all its keys, as JSON has them.
    """

    place: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    system: str | None = None
    row: Row = field(default_factory=dict)


def read_prompts(file: Path, against: bool = False) -> list[Prompt]:
    """Return the prompts of a file: rows with ``prompt`` or ``messages``, with ``system`` if they have one.

    Args:
        file: A file of rows in any format that training rows have.
        against: Whether each row gets a second reply.

    Raises:
        UserError: The file cannot be read or has no row, or a row has a wrong key; names the row and the key.
    """
    taken = [REPLY, OTHER_REPLY] if against else [REPLY]
    prompts = []
    for place, row in read_file(str(file), CHAT):
        try:
            prompts.append(_prompt(place, row, taken))
        except RowError as error:
            raise UserError(f"{place}: {error}") from None
    if not prompts:
        raise UserError(f'{file} has no row: write one JSON object a line, such as {{"prompt": "..."}}')
    return prompts


def _prompt(place: str, row: Any, taken: list[str]) -> Prompt:
    if not isinstance(row, dict):
        raise RowError(f"the row must be an object with 'prompt' or 'messages', not {type(row).__name__}")
    if clash := next((key for key in taken if key in row), None):
        raise RowError(f"the key {clash!r} is the one that the reply gets; rename it")
    row = {str(key): _as_json(key, value) for key, value in row.items()}
    given = [key for key in (PROMPT, MESSAGES) if row.get(key) is not None]
    if len(given) == 2:
        raise RowError("the keys 'prompt' and 'messages' exclude each other; keep one of them")
    if not given:
        close = nearest(PROMPT, row, 1) if row else ""
        hint = f" (the nearest key of the row is {close!r})" if close else " (the row has no key)"
        raise RowError(f"the key 'prompt' or 'messages' is missing{hint}")
    system = row.get(SYSTEM)
    if system is not None and not isinstance(system, str):
        raise RowError(f"the key 'system' must be a text, not {type(system).__name__}")
    try:
        if given == [PROMPT]:
            return Prompt(place, text=Text().check(row[PROMPT]), system=system, row=row)
        messages = CHAT.schema[MESSAGES].check(row[MESSAGES])
    except RowError as error:
        raise RowError(f"the key {given[0]!r} {error}") from None
    return Prompt(place, messages=_conversation(messages, system), system=system, row=row)


def _as_json(key: Any, value: Any) -> Any:
    """Return a value of a row as JSON has it, since the row is written with its reply; dates become ISO texts.

    Raises:
        RowError: JSON cannot hold the value; names the key.
    """
    try:
        return json.loads(json.dumps(value, default=_iso_text, allow_nan=False))
    except TypeError as error:
        reason = f"holds {error}, which JSON cannot hold; write it as a text or a number"
    except ValueError:
        reason = "holds a number that is NaN or infinite, which JSON cannot hold; write null or a finite number"
    except RecursionError:
        reason = "is nested too deeply; remove the inner lists"
    raise RowError(f"the key {key!r} {reason}")


def _iso_text(value: Any) -> str:
    """Return a date or time as a text.

    Raises:
        TypeError: The type of anything else.
    """
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__}")


def _conversation(messages: list[Row], system: str | None) -> tuple[Message, ...]:
    """Return messages that a reply can follow.

    Raises:
        RowError: Names the message.
    """
    roles = [message["role"] for message in messages]
    first = next((number for number, role in enumerate(roles) if role != "system"), len(roles))
    if roles[-1] != "user":
        raise RowError(f"the key 'messages' ends with a message of the {roles[-1]}; the last one must be the user's")
    if "system" in roles[first:]:
        number = roles.index("system", first) + 1
        raise RowError(f"the key 'messages' has a system message as entry {number}, but they must come first")
    if system is not None and first:
        raise RowError("the key 'system' is set, and the messages have a system message too; keep one of them")
    return tuple(Message(message["role"], message["content"].strip()) for message in messages)
