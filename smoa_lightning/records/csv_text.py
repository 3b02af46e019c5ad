"""Tables as CSV for programs and spreadsheets: whole precision, and no text that a spreadsheet reads as a formula."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable

NUMBER_OR_UNIT = re.compile(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?%?|[a-z]+")


def csv_text(lines: Iterable[Iterable[object]]) -> str:
    r"""Return lines as CSV. None and nan are empty cells.

    >>> csv_text([["name", "=x"], ["a", 2.0], [None, True]])
    "name,'=x\na,2\n,true\n"
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([[_cell(entry) for entry in line] for line in lines])
    return stream.getvalue()


def _cell(entry: object) -> str:
    if entry is None:
        return ""
    if isinstance(entry, bool):
        return "true" if entry else "false"
    if isinstance(entry, float):
        whole = entry.is_integer() and abs(entry) < 1e15
        return "" if math.isnan(entry) else str(int(entry)) if whole else repr(float(entry))
    return without_formula(str(entry))


def without_formula(text: str) -> str:
    """Return a text that a spreadsheet does not read as a formula; numbers stay.

    >>> without_formula("=1+1"), without_formula("-0.5"), without_formula("+1.2 points [0.1, 2.3]")
    ("'=1+1", '-0.5', '+1.2 points [0.1, 2.3]')
    """
    first = text.lstrip(" ")[:1]
    if first in ("+", "-"):  # numbers with a unit, an interval or an error; no letter before a bracket: no call
        parts = re.split(r"[ \[\](),±]+", text.strip())
        harmless = all(NUMBER_OR_UNIT.fullmatch(part) for part in parts if part) and not re.search(r"[a-z] *\(", text)
    else:
        harmless = first not in ("=", "@", "\t", "\r", "\n")
    return text if harmless or not first else f"'{text}"
