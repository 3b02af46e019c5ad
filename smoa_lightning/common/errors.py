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

    Small and capital letters are the same. If none is similar, the first options are returned, so that a message always
    shows a valid value.

    >>> nearest("pika", ["boolq", "piqa", "siqa"], count=1), nearest("LoRAConfig", ["LoKrConfig", "LoraConfig"], 1)
    ('piqa', 'LoraConfig')
    """
    written: dict[str, list[str]] = {}
    for option in dict.fromkeys(options):
        written.setdefault(option.casefold(), []).append(option)
    close = difflib.get_close_matches(word.casefold(), written, n=count, cutoff=0.4)
    found = [option for folded in close or written for option in written[folded]]
    return ", ".join(found[:count])
