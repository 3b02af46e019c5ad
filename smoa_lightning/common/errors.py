"""The exception for bad input, and the search for the nearest valid value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

CUTOFF = 0.4  # of difflib's ratio; below it, words are not similar
RELATED = 0.8  # a share of the best ratio; an option below it only shares letters with the word


class UserError(Exception):
    """Bad input. The text is one sentence: what is wrong, where, and the nearest valid value.

    The command line prints the text without a traceback and exits with status 2.
    """


class NotFinite(UserError):
    """A loss, gradient or score is NaN or infinite: training has diverged, or the model has no valid output."""


def one_line(error: BaseException, most: int | None = None, kind: bool = False) -> str:
    """Return the text of an exception on one line; the name of its class if it has no text.

    Args:
        error: The exception.
        most: The most letters of the text; None for all.
        kind: Whether the name of the class comes before the text.

    >>> one_line(OSError("no  such file"), 7), one_line(OSError("no such file"), kind=True), one_line(KeyError())
    ('no such', 'OSError: no such file', 'KeyError')
    """
    name, text = type(error).__name__, " ".join(str(error).split())[:most]
    return f"{name}: {text}" if kind and text else text or name


def nearest(word: str, options: Iterable[str], count: int = 5) -> str:
    """Return up to ``count`` of ``options`` that look most like ``word``, separated by commas.

    Small and capital letters are the same. Options that look much less like the word than the best one are left out. If
    none is similar, the first options are returned, so that a message always shows a valid value.

    >>> nearest("pika", ["boolq", "piqa", "siqa"], count=1), nearest("LoRAConfig", ["LoKrConfig", "LoraConfig"], 1)
    ('piqa', 'LoraConfig')
    >>> nearest("piqua", ["boolq", "piqa", "siqa"])
    'piqa'
    """
    known = list(dict.fromkeys(options))
    return ", ".join((most_alike(word, {option: (option,) for option in known}, count) or known)[:count])


def the_nearest(found: str, kind: str = "") -> str:
    """Return the words that announce what :func:`nearest` found, as one or as several.

    >>> the_nearest("piqa"), the_nearest("q_proj, k_proj", "name"), the_nearest("r", "axis")
    ('the nearest is piqa', 'the nearest names are q_proj, k_proj', 'the nearest axis is r')
    """
    several = "," in found
    noun, *rest = kind.split(" ", 1)  # the noun is the first word, as in "key of a study"
    if several and noun:
        noun = {"axis": "axes", "class": "classes"}.get(noun, f"{noun}s")
    return " ".join(filter(None, ["the nearest", noun, *rest, "are" if several else "is", found]))


def most_alike(word: str, names: Mapping[str, Iterable[str]], count: int) -> list[str]:
    """Return the options of which a name looks most like a word, the best first; empty if none is similar.

    Args:
        word: What the user wrote.
        names: Option -> its names, of which the one that looks most like the word counts.
        count: The most options.
    """
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(word.casefold())  # the matcher keeps facts about the second text

    def ratio(name: str) -> float:
        matcher.set_seq1(name.casefold())
        return matcher.ratio() if matcher.real_quick_ratio() >= CUTOFF and matcher.quick_ratio() >= CUTOFF else 0.0

    ratios = {option: max(map(ratio, its), default=0.0) for option, its in names.items()}
    best = max(ratios.values(), default=0.0)
    alike = [option for option, value in ratios.items() if value >= max(CUTOFF, RELATED * best)]
    return sorted(alike, key=lambda option: -ratios[option])[:count]
