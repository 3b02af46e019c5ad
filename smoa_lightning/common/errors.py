"""The one exception for bad input, and the words that help a user to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: its text is one sentence that says what is wrong, where, and the nearest valid value.

    The command line prints the text alone, without a traceback, and exits with status 2.
    """


def nearest(word: str, options: Iterable[str], count: int = 5) -> str:
    """Return up to ``count`` of ``options`` that look most like ``word``, as a comma-separated text.

    Where nothing looks alike, the first options are named, so that the sentence always shows a valid value.

    >>> nearest("pika", ["boolq", "piqa", "siqa"], count=1)
    'piqa'
    """
    options = list(dict.fromkeys(options))
    close = difflib.get_close_matches(word, options, n=count, cutoff=0.4)
    return ", ".join(close or options[:count])
