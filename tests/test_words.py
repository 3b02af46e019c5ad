"""Plain words: messages, docstrings and documents use no riddles, and messages have short sentences.

The list of forbidden words is not complete. It holds words that readers with school English did not understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tools.messages import Message, docstrings, messages

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]
LONGEST_SENTENCE = 40  # words of a sentence of a message

# Forbidden word (a regular expression) -> words to use instead.
INSTEAD = {
    "can not": "cannot",
    "untouched": "base model",
    r"reckon\w*": "estimate, compute",
    "beside": "with, next to, in addition to",
    "anew": "again",
    "(?:to )?be had": "available",
    r"mend(?:s|ed|ing)?": "fix",
    r"telling|tells|told": "say, print, describe, report",
    "lest": "so that ... not",
    "whatever|whichever|wherever|whoever": "any, every, if",
    r"(?:where|there)(?:by|in|of|upon)": "with this, in this, of this",
    "hence": "so",
    "at hand": "available",
    "in so many words": "by name",
    "in turn": "one after the other",
    "none of them": "no, none",
    "such as it is|as it stands": "unchanged",
    r"stands? (?:in|for|at|there|on)": "is, means",
    "one's own|of one's": "your own",
    r"given up|took its worker with it|taken from another study": "the failed run, its worker, an adopted run",
    r"speaks? of another|the other way round": "is about, the opposite",
    "no kept library": "no maintained library",
    "belong into": "give ... in",
    "come in few sizes": "have only few possible sizes",
    "no group stands on both": "rows of one group stay together",
}
# One group for each entry, so that ``lastindex`` names the entry: the words themselves have no groups that capture.
FORBIDDEN = re.compile(rf"(?<![\w-])(?:{'|'.join(f'({word})' for word in INSTEAD)})(?![\w-])", re.IGNORECASE)
CODE = re.compile(r"```.*?```|``.*?``|`[^`]*`|\{[^{}]*\}", re.DOTALL)  # names in code, and values of the run time


def without_code(text: str) -> str:
    """Return a text with a blank for each piece of code; line ends stay."""
    return CODE.sub(lambda code: "x" + "\n" * code.group().count("\n"), text)


def paragraphs() -> Iterator[Message]:
    """Yield the paragraphs of the documents."""
    for document in DOCUMENTS:
        text, line = without_code(document.read_text(encoding="utf-8")), 1
        for paragraph in text.split("\n\n"):
            yield Message(document.relative_to(ROOT).as_posix(), line, paragraph)
            line += paragraph.count("\n") + 2


def complaints(texts: Iterable[Message]) -> list[str]:
    """Return file, line and the words to use instead for each forbidden word."""
    found = []
    for file, line, text in texts:
        plain = without_code(text)
        for match in FORBIDDEN.finditer(plain.replace("\n", " ")):
            here = f"{file}:{line + plain[: match.start()].count(chr(10))}"
            found.append(
                f"{here}: {match.group()!r}; use instead: {list(INSTEAD.values())[(match.lastindex or 0) - 1]}"
            )
    return found


def test_messages_docstrings_and_documents_use_plain_words() -> None:
    found = complaints([*messages(), *docstrings(), *paragraphs()])
    assert not found, "\n".join(found)


def test_no_sentence_of_a_message_is_long() -> None:
    found = [
        f"{message.file}:{message.line}: a sentence of {count} words, split it: {sentence}"
        for message in messages()
        for sentence in re.split(r"(?<=[.!?])\s+|\s\|\s", without_code(message.text))
        if (count := len(sentence.split())) > LONGEST_SENTENCE
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is made anew, beside\nthe rest.", ["anew", "beside"]),
        ("It cannot be beside-the-point; ``untouched`` and `anew` and {told} are code.", []),
        ("```\ntold\n```\nIt can\nnot be had.", ["can not", "be had"]),
    ],
)
def test_forbidden_words_are_found_as_whole_words_outside_of_code(text: str, found: list[str]) -> None:
    assert [complaint.split("'")[1] for complaint in complaints([Message("file", 1, text)])] == found


def test_a_complaint_names_file_line_and_the_words_to_use() -> None:
    assert complaints([Message("a.md", 7, "one\ntwo\nIt is made anew.")]) == ["a.md:9: 'anew'; use instead: again"]
