"""Fields with the label of a text: its class, or a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smoa_lightning.data.tasks.fields import CountError, RowError, kind, whole_number


@dataclass(frozen=True)
class ClassLabel:
    """A class: its number from 0 on, or its name. Its value is the number; the hub marks rows without a label by -1.

    If all names are numbers themselves, a number is such a name, in any file format.
    """

    names: tuple[str, ...]

    def check(self, value: Any) -> int:
        """Return the number of the class.

        Raises:
            RowError: The value is no class.
            CountError: It is the number of classes: then the labels of all rows count from 1.
        """
        if isinstance(value, str) and value in self.names:
            return self.names.index(value)
        number = whole_number(value)
        if number is not None and all(name.isdecimal() for name in self.names):
            if str(number) in self.names:
                return self.names.index(str(number))
            raise RowError(f"is {value!r}, but must be one of {', '.join(self.names)}")
        if number is None or not 0 <= number < len(self.names):
            shown = kind(value) if number is None and not isinstance(value, str) else repr(value)
            listed = ", ".join(f"{n} ({name})" for n, name in enumerate(self.names))
            if number == len(self.names):
                raise CountError(f"is {shown}, but must be one of {listed}; labels that count from 1 need their names")
            hint = "; -1 marks a row without a public label" if number == -1 else ""
            raise RowError(f"is {shown}, but must be one of {listed}{hint}")
        return number

    def parse(self, text: str) -> str:
        """Return the text unchanged; ``check`` reads the number or the name in it."""
        return text


@dataclass(frozen=True)
class Number:
    """A finite number from ``low`` to ``high``."""

    low: float
    high: float

    def check(self, value: Any) -> float:
        """Return the number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RowError(f"must be a number from {self.low:g} to {self.high:g}, not {kind(value)}")
        if not self.low <= value <= self.high:  # false for NaN
            hint = " (-1 marks a row without a public label)" if value == -1 else ""
            raise RowError(f"is {value}, but must be a number from {self.low:g} to {self.high:g}{hint}")
        return float(value)

    def parse(self, text: str) -> Any:
        """Parse a number; a different text stays text, and ``check`` refuses it."""
        try:
            return float(text)
        except ValueError:
            return text
