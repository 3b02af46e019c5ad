"""The library jsonschema with the parser's rules for numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

# In JSON Schema 3.0 is an integer, and a boolean is not a number. The parser has the opposite rules.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda checker, value: isinstance(value, int) and not isinstance(value, bool)
).redefine("number", lambda checker, value: isinstance(value, int | float))
_Validator = extend(Draft202012Validator, type_checker=_TYPES)


def is_valid(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value fits a schema."""
    return bool(_Validator(schema).is_valid(value))
