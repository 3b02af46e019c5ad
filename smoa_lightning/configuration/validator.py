"""The library jsonschema with Python's notion of whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

# JSON Schema counts 3.0 among the integers, and no boolean among the numbers; the parser does neither.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda checker, value: isinstance(value, int) and not isinstance(value, bool)
).redefine("number", lambda checker, value: isinstance(value, int | float))
_Validator = extend(Draft202012Validator, type_checker=_TYPES)


def is_valid(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is what a schema describes."""
    return bool(_Validator(schema).is_valid(value))
