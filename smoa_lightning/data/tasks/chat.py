"""The task ``chat`` for your own conversations: one row for each reply of the assistant that is learned."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smoa_lightning.data.tasks.base import (
    Generation,
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
)

ROLES = ("system", "user", "assistant")
OTHER_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


LOSS = "loss"
SWITCHES = ("weight", "train", LOSS)  # of OpenAI's files, of axolotl, of ms-swift
MESSAGE_KEYS = ("role", "content", "from", "value", *SWITCHES)


def is_learned(entry: Row, role: str) -> bool:
    """Return whether the loss counts a message: not with ``weight`` 0, nor with ``train`` or ``loss`` false.

    ``weight`` 1 of a user or system message has no effect, as in OpenAI's files.

    Raises:
        RowError: a value other than 0 and 1 (or false and true); a message that is not the assistant's and asks for a
            loss; two keys that contradict each other.
    """
    found: dict[str, bool] = {}
    for key in SWITCHES:
        value = entry.get(key)
        if value is None:
            continue
        if isinstance(value, str) or value not in (0, 1):
            raise RowError(f"has {key} {value!r}, but it must be {'1 or 0' if key == 'weight' else 'true or false'}")
        found[key] = bool(value)
        if value and key != "weight" and role != "assistant":
            raise RowError(f"is a message of the {role} with {key} true, but only replies of the assistant are learned")
    if len(set(found.values())) > 1:
        raise RowError(f"has {' and '.join(found)} that contradict each other; keep one of them")
    return all(found.values())


def _text_of(content: Any) -> Any:
    """Return the text of a list of parts, ``[{"type": "text", "text": ...}]``; a different content is unchanged.

    Raises:
        RowError: a part that is no text, such as an image.
    """
    if (
        not isinstance(content, list | tuple)
        or not content
        or not all(isinstance(part, dict) and "type" in part for part in content)
    ):
        return content
    for part in content:
        if part["type"] != "text" or not isinstance(part.get("text"), str):
            raise RowError(f"has a part of type {part['type']!r}, but only parts of type 'text' are read")
    return "\n".join(part["text"] for part in content)


@dataclass(frozen=True)
class History:
    """Earlier turns: pairs of a user's text and the assistant's reply, as in LLaMA-Factory, or messages."""

    def check(self, value: Any) -> list[Row]:
        """Return the turns as messages."""
        if not isinstance(value, list | tuple):
            raise RowError(f"must be a list of turns, not {kind(value)}")
        if all(isinstance(entry, dict) for entry in value):
            return Messages().check(value) if value else []
        return [message for number, entry in enumerate(value, start=1) for message in self._turn(number, entry)]

    @staticmethod
    def _turn(number: int, entry: Any) -> list[Row]:
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise RowError(f"is a list whose entry {number} must be a pair of the user's text and the reply")
        try:
            said, reply = (Text().check(text) for text in entry)
        except RowError as error:
            raise RowError(f"is a list whose entry {number} holds a text that {error}") from None
        return [{"role": "user", "content": said}, {"role": "assistant", "content": reply}]

    def parse(self, text: str) -> Any:
        """Parse a list in the syntax of JSON or Python. A different text stays text, and ``check`` refuses it."""
        return Texts().parse(text)


@dataclass(frozen=True)
class Messages:
    """A list of messages, ``{"role": ..., "content": ...}``, or ShareGPT's ``{"from": ..., "value": ...}``.

    A message with ``weight`` 0, or with ``train`` or ``loss`` false, is context only: see ``is_learned``.
    """

    def check(self, value: Any) -> list[Row]:
        """Return the messages with ``role`` and ``content``, and ``loss``: false if nothing is learned from one."""
        if not isinstance(value, list | tuple) or not value:
            raise RowError(f"must be a list of messages, not {kind(value)}")
        return [self._message(number, entry) for number, entry in enumerate(value, start=1)]

    @staticmethod
    def _message(number: int, entry: Any) -> Row:
        if not isinstance(entry, dict):
            raise RowError(f"is a list whose entry {number} must be an object with 'role' and 'content'")
        role = entry.get("role", entry.get("from"))
        content = entry.get("content", entry.get("value"))
        role = OTHER_ROLES.get(role, role) if isinstance(role, str) else role
        if role not in ROLES:
            raise RowError(f"is a list whose entry {number} has the role {role!r}; roles are {', '.join(ROLES)}")
        try:
            message: Row = {"role": role, "content": Text().check(_text_of(content))}
        except RowError as error:
            raise RowError(f"is a list whose entry {number} has a content that {error}") from None
        try:
            return message if is_learned(entry, role) else {**message, LOSS: False}
        except RowError as error:
            raise RowError(f"is a list whose entry {number} {error}") from None

    def unread(self, value: Any) -> set[str]:
        """Return the keys of messages that hold a value which is not read, such as ``tool_calls``."""
        entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list | tuple) else []
        return {str(key) for entry in entries for key, held in entry.items() if key not in MESSAGE_KEYS and held}

    def parse(self, text: str) -> Any:
        """Parse a list in the syntax of JSON or Python. A different text stays text, and ``check`` refuses it."""
        return Texts().parse(text)


def conversation(row: Row) -> list[Row]:
    """Return the messages of a row: the ``system`` column, system messages, ``history``, and the other messages."""
    system = [{"role": "system", "content": row["system"]}] if row["system"].strip() else []
    first = next((n for n, message in enumerate(row["messages"]) if message["role"] != "system"), 0)
    before = list(row["history"])
    own = list(itertools.takewhile(lambda message: message["role"] == "system", before))
    return [*system, *own, *row["messages"][:first], *before[len(own) :], *row["messages"][first:]]


def chat_rule(row: Row) -> None:
    """Refuse a system message after the first turn, and a conversation without an answer.

    Raises:
        RowError: names the message.
    """
    said, messages = row["messages"], conversation(row)
    roles = [message["role"] for message in said]
    spoken = [number for number, role in enumerate(roles) if role != "system"]
    if spoken and "system" in roles[spoken[0] :]:
        number = roles.index("system", spoken[0]) + 1
        raise RowError(f"field 'messages' has a system message as entry {number}, but they must come first")
    if row["system"].strip() and any(message["role"] == "system" for message in (*said, *row["history"])):
        raise RowError("field 'system' is set, and the messages have a system message too; keep one of them")
    if not _answers(messages):
        raise RowError("field 'messages' has no assistant message after a user message, so there is nothing to learn")
    if not any(message.get(LOSS, True) for message in (messages[n] for n in _answers(messages))):
        raise RowError("field 'messages' has only replies with weight 0 (or train or loss false): nothing to learn")


def _answers(messages: Sequence[Row]) -> list[int]:
    """Return the positions of the assistant's messages that follow a message of the user or the assistant."""
    roles = [message["role"] for message in messages]
    return [n for n, role in enumerate(roles) if role == "assistant" and {"user", "assistant"} & set(roles[:n])]


def chat_rows(row: Row) -> list[Row]:
    """Return one row for each message of the assistant that is learned, with the messages before it."""
    messages = conversation(row)
    learned = [n for n in _answers(messages) if messages[n].get(LOSS, True)]
    return [{"messages": messages[:n], "reply": messages[n]["content"]} for n in learned]


def chat_counts(row: Row) -> list[str]:
    """Count the conversations, and those that end with a message of the user."""
    return ["conversations"] + ["unanswered"] * (row["messages"][-1]["role"] == "user")


def chat_remark(counts: Mapping[str, int]) -> str | None:
    """Return how many last messages have no reply."""
    count = counts.get("unanswered", 0)
    if not count:
        return None
    return (
        f"{count} of {counts['conversations']} conversations end with a message of the user that has no reply, so this "
        "message is not used"
    )


def chat_example(row: Row) -> ReplyExample:
    r"""Return the item of a reply. In plain text, the turns begin with ``User:`` and ``Assistant:``.

    >>> messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    >>> chat_example({"messages": messages, "reply": "Hi."}).target
    ('Be brief.\nUser: Hi?\nAssistant:', ' Hi.')
    """
    messages = tuple(Message(message["role"], message["content"].strip()) for message in row["messages"])
    head = "".join(f"{message.content}\n" for message in messages if message.role == "system")
    spoken = [message for message in messages if message.role != "system"]
    turns = [f"{message.role.capitalize()}: {message.content}\n" for message in spoken]
    masked = any(not message.get(LOSS, True) for message in row["messages"])
    return ReplyExample(
        head, (*turns[:-1], turns[-1] + "Assistant:"), f" {row['reply'].strip()}", None, messages, masked=masked
    )


def chat_group(row: Row) -> str:
    """Return the messages of the user: all replies of a conversation, and other answers to the same, are one group."""
    spoken = [message for message in conversation(row) if message["role"] != "system"]
    asked = [message for message in spoken if message["role"] == "user"] or spoken[:1]
    return fold("\n".join(message["content"] for message in asked))


CHAT = Task(
    name="chat",
    version=2,
    hub_repository=None,
    hub_revision=None,
    schema={
        "messages": Messages(),
        "system": Missing(Text(allow_empty=True)),
        "history": Missing(History(), default=()),
    },
    generation=Generation(chat_example, "perplexity", max_new_tokens=128, stop=("\nUser:",), chat_template=True),
    group=chat_group,
    rule=chat_rule,
    expand=chat_rows,
    remarks=Remarks(chat_counts, chat_remark),
    licence="that of the rows",
    reference="rows of one's own",
)
