r"""The answer in a generated reply: a label word or a number. Pure functions of the text.

A reply without an answer gives None. It is never right, and ``unparsed_rate`` counts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction

# ---- words


def choice_word(words: Iterable[str]) -> Callable[[str], str | None]:
    """Return a function that finds the first of ``words`` in a text, as a whole word in small or capital letters.

    The first match decides, as in LLM-Adapters (arXiv 2304.01933). The code of LLM-Adapters also finds ``option1`` in
    ``option12``, and does not find ``Option1``.

    >>> find = choice_word(["solution1", "solution2"])
    >>> find("The correct answer is Solution2, not solution1."), find("solution10")
    ('solution2', None)
    """
    written = {word.lower(): word for word in words}
    # No word characters on both sides. `\b` is wrong for a word that begins or ends with a sign.
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, written))})(?!\w)", re.IGNORECASE)

    def find(text: str) -> str | None:
        hit = pattern.search(text)
        return written[hit.group().lower()] if hit else None

    return find


# ---- numbers

MINUS = "-\u2212\u2013"
BETWEEN_THOUSANDS = "[,\u00a0\u2009\u202f]"
_DIGITS = "[0-9]{1,60}"  # a limit, since Python cannot convert a number with many thousand digits
_PLAIN = (
    rf"(?:[0-9]{{1,3}}(?:{BETWEEN_THOUSANDS}[0-9]{{2,3}}){{0,20}}{BETWEEN_THOUSANDS}[0-9]{{3}}|{_DIGITS})"
    rf"(?:\.{_DIGITS})?|(?<!\.)\.{_DIGITS}"
)
NUMBER = re.compile(
    rf"""(?:(?<![\w)\]}}])(?P<sign>[{MINUS}+]))?          # a minus after a letter, digit or bracket is an operator
    (?: (?:[$€£¥₹]\s?)(?P<inner>[{MINUS}])?               # -$5 and $-5
      | (?<![^\W_])(?<![0-9][.,/]) )                      # not inside of a word or of another number
    (?: (?P<whole>[0-9]{{1,20}})\ (?P<top>[0-9]{{1,20}})/(?P<below>[0-9]{{1,20}})   # 2 1/2
      | (?P<numerator>{_DIGITS})/(?P<denominator>{_DIGITS})                         # 1/2
      | (?P<plain>{_PLAIN}) )
    (?![.,/]?[0-9]|[eE][-+]?[0-9])                        # 12,34 and 1.2.3 are no numbers, nor is a part of them""",
    re.VERBOSE,
)
_MARKED = re.compile(r"####[\s*_`:=~({\[$\\]*")
_STATED = re.compile(r"\banswer\s+is\b", re.IGNORECASE)


def canonical(value: Fraction) -> str:
    """Return a number as the shortest decimal, or as a fraction in lowest terms if no decimal is exact.

    >>> canonical(Fraction("1234.50")), canonical(Fraction(-6, 8)), canonical(Fraction(2, 6)), canonical(Fraction(0))
    ('1234.5', '-0.75', '1/3', '0')
    """
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if value < 0 else text


def final_number(text: str) -> str | None:
    r"""Return the final number of a reply in its one spelling, so that answers can be compared by equality.

    The first of these rules that finds a number decides:

    1. The number directly after the first ``####`` with a number, the mark of GSM8K (arXiv 2110.14168). This is
       ``strict-match`` of lm-evaluation-harness, ``#### (\-?[0-9\.\,]+)``, which accepts no currency sign.
    2. The first number after the last ``answer is`` (MetaMathQA: ``The answer is: 8``). If its sentence contains an
       equation, the number after the last ``=``.
    3. The last number of the reply, as ``flexible-extract`` of lm-evaluation-harness.

    A number may have a sign, thousands separators (``1,234``, ``1,00,000``), decimals or a fraction (``1/2``,
    ``2 1/2``, ``\frac{1}{2}``). Currency signs, percent signs, units, a full stop and Markdown or LaTeX marks around it
    are ignored. Words (``twelve``) are not read, and neither are ``12,34``, ``1.2.3``, ``1e3`` and ``1/2/2023``.

    >>> final_number("So 48 + 24 = 72 clips.\n#### 72"), final_number("The answer is $1,234.50."), final_number("x")
    ('72', '1234.5', None)
    """
    text = _without_latex(text)
    for mark in _MARKED.finditer(text):
        hit = NUMBER.match(text, mark.end())
        if hit and (value := _value(hit)) is not None:
            return canonical(value)
    *_, last = (None, *_STATED.finditer(text))
    if last is not None:
        rest = text[last.end() :].lstrip(" :*\n")
        sentence = re.split(r"\.\s|\n", rest, maxsplit=1)[0]
        stated = _numbers(sentence.rpartition("=")[2]) or _numbers(rest)
        if stated:
            return canonical(stated[0])
    numbers = _numbers(text)
    return canonical(numbers[-1]) if numbers else None


def stated_answer(text: str) -> str | None:
    r"""Return the text after the last ``The answer is:``. A number has its one spelling; other terms are texts.

    For MetaMathQA (arXiv 2309.12284), where half of the answers are terms. Two terms are equal if their texts are
    equal. Dollar signs, spaces, a full stop, ``\text{}``, and the kinds of fraction and of bracket are ignored; ``x+1``
    and ``1+x`` are different. None if the sentence is missing or empty.

    >>> stated_answer("The answer is: 1,200"), stated_answer(r"The answer is: $\dfrac{x}{2}$."), stated_answer("12")
    ('1200', '\\frac{x}{2}', None)
    """
    *_, last = (None, *_STATED.finditer(text))
    if last is None:
        return None
    rest = text[last.end() :].lstrip(": \n").partition("\n")[0]
    rest = re.sub(r"\\text\{([^{}]*)\}", r"\1", rest).replace(r"\left", "").replace(r"\right", "").replace("$", "")
    rest = re.sub(r"\\[dt]frac", r"\\frac", rest).strip().removesuffix(".").strip()
    rest = re.sub(r"^\\boxed\{(.*)\}$", r"\1", rest)
    hit = NUMBER.fullmatch(_without_latex(rest).strip())
    if hit and (value := _value(hit)) is not None:
        return canonical(value)
    return "".join(rest.split()) or None


def _without_latex(text: str) -> str:
    r"""Write ``\frac{1}{2}`` as `` 1/2``, ``1{,}000`` as ``1,000``, and remove boxes and spacing commands."""
    text = re.sub(r"\\[dt]?frac\{\s*(-?[0-9]+)\s*\}\{\s*([0-9]+)\s*\}", r" \1/\2", text)
    return re.sub(r"\\[,!;: ]|\\boxed(?=\{)", "", text.replace("{,}", ","))


def _numbers(text: str) -> list[Fraction]:
    return [value for hit in NUMBER.finditer(text) if (value := _value(hit)) is not None]


def _value(hit: re.Match[str]) -> Fraction | None:
    """Return the value of a match, None for a division by zero."""
    part = hit.groupdict()
    try:
        if part["whole"]:
            value = int(part["whole"]) + Fraction(int(part["top"]), int(part["below"]))
        elif part["numerator"]:
            value = Fraction(int(part["numerator"]), int(part["denominator"]))
        else:
            value = Fraction(re.sub(BETWEEN_THOUSANDS, "", part["plain"]))
    except ZeroDivisionError:
        return None
    return -value if (part["sign"] or part["inner"] or "+") in MINUS else value
