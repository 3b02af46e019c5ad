"""A phone book: name -> random digits. What a method stores of it is its capacity, in bits.

After the pairs of random identifiers of MoRA (arXiv 2405.12130) and the bits of arXiv 2605.30260. The trained rows
themselves are scored, with ``data.selection: trained_rows``: the digits of other names cannot be known.
"""

from __future__ import annotations

import math
import re

from smoa_lightning.data.tasks.base import Generation, ReplyExample, Row, RowError, Task, Text, fold

BITS_PER_DIGIT = math.log2(10)


def example(row: Row) -> ReplyExample:
    r"""Return the item: the digits as the reply, with a space before each, so that no two digits share a token.

    >>> example({"name": "Ada Elmwood", "number": "4 15"}).target
    ('Name: Ada Elmwood\nNumber:', ' 4 1 5')
    """
    found = digits(row["number"])
    return ReplyExample(f"Name: {row['name'].strip()}\nNumber:", (), "".join(f" {digit}" for digit in found), found)


def digits(text: str) -> str:
    """Return the digits of a text.

    >>> digits("4 1-5")
    '415'
    """
    return "".join(re.findall("[0-9]", text))


def said(reply: str) -> str | None:
    """Return the digits of a reply; None without a digit."""
    return digits(reply) or None


def code_bits(reference: str) -> float:
    """Return the bits of a number of random digits: log2(10) for each.

    >>> round(code_bits("4 1 5"), 3)
    9.966
    """
    return BITS_PER_DIGIT * len(digits(reference))


def number_rule(row: Row) -> None:
    """Refuse a number without digits, or with letters.

    Raises:
        RowError: shows the number.
    """
    if not re.fullmatch(r"[0-9](?:[ -]?[0-9])*", row["number"].strip()):
        raise RowError(f"field 'number' must be digits, with single spaces or hyphens between them: {row['number']!r}")


def name_group(row: Row) -> str:
    """Return the name in small letters with single spaces."""
    return fold(row["name"])


PHONE_BOOK = Task(
    name="phone_book",
    version=1,
    hub_repository=None,
    hub_revision=None,
    schema={"name": Text(), "number": Text()},
    generation=Generation(
        example, "stored_bits", answer=said, max_new_tokens=24, selection_metric="stored_bits", code_bits=code_bits
    ),
    group=name_group,
    rule=number_rule,
    licence="that of the rows",
    reference="arXiv 2405.12130",
)
