"""Failures of peft's suite with our configs that are known, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Name of a test, words in the names of its parameters (empty: all), reason.
KNOWN: list[tuple[str, str, str]] = []


def reason(test: str, parameters: Mapping[str, Any]) -> str | None:
    """Return the reason for which a test is expected to fail, or None."""
    text = " ".join(str(value) for value in parameters.values())
    for name, words, why in KNOWN:
        if test == name and words in text:
            return why
    return None
