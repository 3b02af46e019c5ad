"""Conditions on cells: which cells are dropped, and which cells a parameter of a search applies to.

A condition is a mapping. It is true if all its entries are true. An entry is ``KEY: TEST``; the key is an axis or a
configuration key, and the test is one of

* a value: ``partition: none``;
* a list of tests, of which at least one must be true: ``num_subspaces: [2, '>=8']``;
* a comparison: one of ``> >= < <= == !=``, then a number, an axis or a configuration key:
  ``num_subspaces: '>1'``, ``r: '<num_subspaces'``; after ``==`` and ``!=`` also a text: ``partition: '!=none'``.

An axis is compared by its value or by its label; a label in quotes is the same as one without. A key that a cell does
not set has its default value. If the strategy of a cell does not have the key, every test is false.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.settings import ABSENT
from smoa_lightning.configuration.yaml_files import read_flag

_COMPARISON = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\S.*?)\s*")
_ORDER: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}

Lookup = Callable[[str], tuple[Any, ...]]  # key -> its value and label; (ABSENT,) if the cell does not have the key


@dataclass(frozen=True)
class Comparison:
    """A comparison with a value, or with the value of a different key.

    Attributes:
        sign: One of ``== != > >= < <=``.
        operand: The value, or the key.
        key: Whether the operand is a key.
    """

    sign: str
    operand: Any
    key: bool = False

    def holds(self, key: str, lookup: Lookup, where: str) -> bool:
        """Whether the test is true for a cell.

        Raises:
            UserError: A value that is not a number is compared by size.
        """
        mine, theirs = lookup(key), lookup(self.operand) if self.key else (self.operand,)
        if ABSENT in mine or ABSENT in theirs:
            return False
        if self.sign in ("==", "!="):
            return any(equal(a, b) for a in mine for b in theirs) == (self.sign == "==")
        for name, value in ((key, mine[0]), (str(self.operand), theirs[0])):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{where}{name} is {value!r} in a cell, but {self.sign!r} can compare only numbers")
        return _ORDER[self.sign](mine[0], theirs[0])


@dataclass(frozen=True)
class Condition:
    """Tests of several keys; several tests of one key are alternatives.

    Attributes:
        entries: Key -> its tests.
        where: Place in the file, for messages.
    """

    entries: Mapping[str, tuple[Comparison, ...]]
    where: str = ""

    def holds(self, lookup: Lookup) -> bool:
        """Whether the condition is true for a cell."""
        return all(any(t.holds(key, lookup, self.where) for t in tests) for key, tests in self.entries.items())


def parse_condition(
    given: Any, where: str, find: Callable[[str, str], str], values: Callable[[str, Any, str], Any]
) -> Condition:
    """Read a condition.

    Args:
        given: The condition in the file.
        where: Its place in the file.
        find: (name, where) -> the axis or full configuration key; raises UserError if there is none.
        values: (key, value, where) -> the value as cells have it; raises UserError if the key can never have the value.

    Raises:
        UserError: The condition is not a mapping, or a test has wrong syntax.
    """
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"{where}a condition must be {{KEY: VALUE}}, such as {{partition: none, num_subspaces: '>1'}}")
    entries = {}
    for name, tests in given.items():
        key = find(str(name), where)
        entries[key] = tuple(
            _test(t, key, where, find, values) for t in (tests if isinstance(tests, list) else [tests])
        )
    return Condition(entries, where)


def _test(
    given: Any, key: str, where: str, find: Callable[[str, str], str], values: Callable[[str, Any, str], Any]
) -> Comparison:
    match = _COMPARISON.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        if isinstance(given, Mapping | list):
            raise UserError(
                f"{where}the test of {key} is {given!r}, but must be a value, a list of values, or a comparison such "
                "as '>1'"
            )
        if isinstance(given, str) and given[:1] in "<>=!":
            raise UserError(f"{where}{key}: {given!r} is not a comparison; write for example '>1', '<=8' or '!=none'")
        return Comparison("==", values(key, given, where))
    sign, text = match.groups()
    try:
        return Comparison(sign, float(text))
    except ValueError:
        pass
    if sign in _ORDER:
        return Comparison(sign, find(text, f"{where}{key} {sign}: "), key=True)
    try:
        return Comparison(sign, find(text, where), key=True)
    except UserError:
        return Comparison(sign, values(key, text, where))


def equal(first: Any, second: Any) -> bool:
    """Whether two values are equal: 1 equals 1.0, but true does not equal 1. A text equals what YAML reads it as.

    >>> equal(1, 1.0), equal(True, 1), equal("r", "r"), equal("1e-3", 0.001), equal(None, "null"), equal("none", None)
    (True, False, True, True, True, False)
    """
    if isinstance(first, str) != isinstance(second, str):
        first, second = (read_flag(v, "").value if isinstance(v, str) and v else v for v in (first, second))
    return isinstance(first, bool) == isinstance(second, bool) and bool(first == second)
