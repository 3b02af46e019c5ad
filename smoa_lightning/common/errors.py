"""The exception for bad input, and the search for the nearest valid value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The text is one sentence: what is wrong, where, and the nearest valid value.

    The command line prints the text without a traceback and exits with status 2.
    """


def nearest(word: str, options: Iterable[str], count: int = 5) -> str:
    """Return up to ``count`` of ``options`` that look most like ``word``, separated by commas.

    If none is similar, the first options are returned, so that a message always shows a valid value.

    >>> nearest("pika", ["boolq", "piqa", "siqa"], count=1)
    'piqa'
    """
    options = list(dict.fromkeys(options))
    close = difflib.get_close_matches(word, options, n=count, cutoff=0.4)
    return ", ".join(close or options[:count])
