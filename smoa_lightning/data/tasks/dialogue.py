r"""Dialogue: ConvAI2 (PersonaChat) with personas, and DailyDialog.

A raw row is a conversation. It becomes one row for each reply, with the turns before the reply. As plain text:

    your persona: i have two dogs.
    Partner: hi ! how are you ?
    You: i'm doing great . just relaxing with my dogs .
    Partner: what do you do ?
    You:

In a chat template, the persona is the system message, the partner is the user, and the model is the assistant. A prompt
that is too long loses its oldest turns; the persona stays.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from smoa_lightning.data.tasks.base import (
    Generation,
    Message,
    Missing,
    ReplyExample,
    Row,
    RowError,
    Task,
    Texts,
    fold,
    kind,
)

MAX_NEW_TOKENS = 40  # the longest of 783 gold replies of ConvAI2 takes 25 tokens of SmolLM2
SILENCE = "__SILENCE__"  # ParlAI's mark for a partner who says nothing, if the speaker with the persona begins


def one_line(text: str) -> str:
    """Return a turn with single spaces and no line break, since a line break ends a reply."""
    return " ".join(text.split())


def conversation(history: Sequence[str], reply: str, persona: Sequence[str] = ()) -> ReplyExample:
    """Return the item of a reply. The speakers alternate, and the last turn before the reply is from the partner.

    >>> example = conversation(["hi", "hello !", "who are you ?"], "a cook .", ["i cook."])
    >>> example.prompt
    'your persona: i cook.\\nPartner: hi\\nYou: hello !\\nPartner: who are you ?\\nYou:'
    >>> [message.role for message in example.messages]
    ['system', 'user', 'assistant', 'user']
    """
    lines = [f"your persona: {one_line(line)}\n" for line in persona]
    said = [one_line(turn) for turn in history]
    own = [(len(said) - number) % 2 == 0 for number in range(len(said))]
    turns = [f"{'You' if mine else 'Partner'}: {turn}\n" for mine, turn in zip(own, said, strict=True)]
    system = (Message("system", "".join(lines).strip()),) if lines else ()
    messages = tuple(Message("assistant" if mine else "user", turn) for mine, turn in zip(own, said, strict=True))
    return ReplyExample(
        head="".join(lines),
        turns=(*turns[:-1], turns[-1] + "You:"),
        response=f" {one_line(reply)}",
        messages=system + messages,
    )


@dataclass(frozen=True)
class Positions:
    """A list of positions, ascending whole numbers from 1 on."""

    def check(self, value: Any) -> list[int]:
        """Return the list unchanged."""
        if not isinstance(value, list | tuple) or not value:
            raise RowError(f"must be a list of positions, not {kind(value)}")
        if any(isinstance(entry, bool) or not isinstance(entry, int) or entry < 1 for entry in value):
            raise RowError(f"must hold whole numbers from 1 on, but is {value}")
        if list(value) != sorted(set(value)):
            raise RowError(f"must ascend, but is {value}")
        return list(value)

    def parse(self, text: str) -> Any:
        """Read positions with spaces or commas between them; anything else stays text."""
        words = text.replace(",", " ").split()
        return [int(word) for word in words] if words and all(word.isdecimal() for word in words) else text


# ---- ConvAI2


def convai2_example(row: Row) -> ReplyExample:
    """Return the item of a reply under its speaker's persona."""
    return conversation(row["history"], row["reply"], row["personality"])


def convai2_group(row: Row) -> str:
    """Return the lines of the persona in a fixed order: conversations of one persona have similar contents."""
    return " | ".join(sorted(map(fold, row["personality"])))


def convai2_rule(row: Row) -> None:
    """Refuse a position outside of the dialogue.

    Raises:
        RowError: names the position.
    """
    if row["replies"] and row["replies"][-1] >= len(row["dialog"]):
        raise RowError(f"field 'replies' names position {row['replies'][-1]}, but there are {len(row['dialog'])} turns")


def convai2_rows(row: Row) -> list[Row]:
    """Return one row for each reply of the speaker with the persona: every second turn, or those at ``replies``."""
    turns = row["dialog"]
    places = row["replies"] or range(1, len(turns), 2)
    return [{"personality": row["personality"], "history": turns[:n], "reply": turns[n]} for n in places]


def convai2_layout(row: Row) -> Row:
    """Change the layouts of the hub to ``personality`` and ``dialog`` (the partner speaks first).

    * ``utterances``: a whole conversation, as a list of ``history`` and ``candidates``; the last candidate is the reply
      (AlekseyKorshuk/persona-chat).
    * ``history`` and ``candidates``: one reply of a conversation (bavard/personachat_truecased).
    * ``history`` and ``reply``: the same without wrong candidates.

    Raises:
        RowError: utterances of different conversations; a field of a wrong type.
    """
    if "dialog" in row:
        return row
    if "utterances" in row:
        dialog, replies = _whole_dialog(row["utterances"])
    elif "history" in row and ("candidates" in row or "reply" in row):
        dialog = [*_texts(row, "history"), row["reply"] if "reply" in row else _texts(row, "candidates")[-1]]
        replies = [len(dialog) - 1]
    else:
        return row
    # a reply needs a turn before it
    return {**row, "dialog": dialog, "replies": [place for place in replies if place > 0]}


def _texts(row: Any, name: str) -> list[str]:
    try:
        return Texts().check(row.get(name) if isinstance(row, dict) else None)
    except RowError as error:
        raise RowError(f"field {name!r} {error}") from None


def _whole_dialog(utterances: Any) -> tuple[list[str], list[int]]:
    """Return the turns of a conversation and the positions of its replies."""
    if isinstance(utterances, dict):  # columns: `datasets` returns a sequence of objects in this form
        columns: list[Any] = [utterances.get(name) for name in ("history", "candidates")]
        if not all(isinstance(column, list) for column in columns) or len(columns[0]) != len(columns[1]):
            raise RowError("field 'utterances' must hold lists 'history' and 'candidates' of one length")
        utterances = [{"history": h, "candidates": c} for h, c in zip(*columns, strict=True)]
    if not isinstance(utterances, list) or not utterances:
        raise RowError(f"field 'utterances' must be a list of utterances, not {kind(utterances)}")
    parts = []
    for number, utterance in enumerate(utterances, start=1):
        try:
            parts.append([*_texts(utterance, "history"), _texts(utterance, "candidates")[-1]])
        except RowError as error:
            raise RowError(f"field 'utterances', entry {number}: {error}") from None
    for number, (before, after) in enumerate(itertools.pairwise(parts), start=2):
        if after[: len(before)] != before:
            raise RowError(f"field 'utterances', entry {number} does not continue the entry before it")
    return parts[-1], [len(part) - 1 for part in parts]


def convai2_text(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    r"""Read ParlAI's text: ``1 your persona: i read.``, then ``5 partner\tself``; number 1 begins a dialogue.

    Candidates in later columns and the lines ``partner's persona:`` are skipped. So is a dialogue without a turn at the
    end of the file.

    Raises:
        RowError: a line without its number or its tab; a dialogue without a turn.
    """
    row: Row | None = None
    start = last = 0
    for place, line in lines:
        if not line.strip():
            continue
        head = re.match(r"\s*([0-9]+) (.*)", line.rstrip("\r\n"))
        if head is None:
            raise RowError(f"must begin with a number and a space: {line[:60]!r}")
        number, text = int(head[1]), head[2]
        if number == 1:
            if row is not None:
                yield start, _with_turns(row)
            row, start = {"personality": [], "dialog": [], "replies": []}, place
        elif row is None or number != last + 1:
            raise RowError(f"has number {number} after {last or 'none'}; a dialogue counts from 1")
        last = number
        _add_line(row, text)
    if row is not None and row["dialog"]:
        yield start, row


def _with_turns(row: Row) -> Row:
    if not row["dialog"]:
        raise RowError("begins a dialogue, but the one before it has no turn")
    return row


def _add_line(row: Row, text: str) -> None:
    if text.startswith("partner's persona:"):
        return
    if text.startswith("your persona:"):
        row["personality"].append(text.removeprefix("your persona:").strip())
        return
    partner, tab, rest = text.partition("\t")
    reply = rest.partition("\t")[0]
    if not tab or not reply.strip():
        raise RowError(f"has no reply after a tab: {text[:60]!r}")
    if partner.strip() and partner.strip() != SILENCE:
        row["dialog"].append(partner.strip())
    row["dialog"].append(reply.strip())
    if len(row["dialog"]) > 1:
        row["replies"].append(len(row["dialog"]) - 1)


# Parquet files at this commit, the head of `main`: the conversations of ConvAI2 with the original personas of the
# replying speaker, 20 candidates for each reply. bavard/personachat_truecased needs a loading script, except on its
# converted branch. Name that branch with `data.repository` and `data.revision` to read its rows.
CONVAI2 = Task(
    name="convai2",
    version=1,
    hub_repository="AlekseyKorshuk/persona-chat",
    hub_revision="498fd0081de41b8833a72e1a126aaf52917e1ddd",
    schema={"personality": Texts(), "dialog": Texts(least=2), "replies": Missing(Positions(), default=())},
    generation=Generation(convai2_example, "perplexity", max_new_tokens=MAX_NEW_TOKENS, stop=("\n",)),
    group=convai2_group,
    rule=convai2_rule,
    normalise=convai2_layout,
    reads=("utterances", "history", "candidates", "reply"),
    expand=convai2_rows,
    read_text=convai2_text,
    licence="CC-BY-4.0",
    reference="arXiv:1801.07243, arXiv:1902.00098",
    splits=("train", "validation"),
)

# ---- DailyDialog


def daily_dialog_example(row: Row) -> ReplyExample:
    """Return the item of a turn; the model is the speaker of that turn."""
    return conversation(row["history"], row["reply"])


def daily_dialog_group(row: Row) -> str:
    """Return the first turn of the conversation; many conversations share it."""
    return fold(row["dialog"][0])


def daily_dialog_rows(row: Row) -> list[Row]:
    """Return one row for each turn from the second on."""
    turns = row["dialog"]
    return [{"history": turns[:n], "reply": turns[n]} for n in range(1, len(turns))]


def daily_dialog_text(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    """Read the original text: one conversation on each line, ``__eou__`` after each turn."""
    for place, line in lines:
        if line.strip():
            yield place, {"dialog": [turn.strip() for turn in line.split("__eou__") if turn.strip()]}


# A copy as Parquet files with all 11,118 + 1,000 + 1,000 conversations at this commit; the original repository has only
# a loading script. Acts and emotions are not read.
DAILY_DIALOG = Task(
    name="daily_dialog",
    version=1,
    hub_repository="OpenRL/daily_dialog",
    hub_revision="1668faf0c0dc44664f108c489fd0666128db2c48",
    schema={"dialog": Texts(least=2)},
    generation=Generation(daily_dialog_example, "perplexity", max_new_tokens=64, stop=("\n",)),
    group=daily_dialog_group,
    expand=daily_dialog_rows,
    read_text=daily_dialog_text,
    licence="CC-BY-NC-SA-4.0",
    reference="arXiv:1710.03957",
    report_split="test",
)
