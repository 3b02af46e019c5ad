"""What the parser may import for a class path, and what a class path may name."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from jsonargparse._common import parsing_settings  # the public interface can add rules, but cannot remove them

from smoa_lightning.common.allowed_classes import allowed_packages
from smoa_lightning.common.errors import UserError


@contextlib.contextmanager
def import_policy(allowed_only: bool) -> Iterator[None]:
    """Restrict the imports of the parser until the end of the block.

    Modules of Python that run commands or change files are never imported. A value of a setting without a declared
    class stays a mapping, even if it names a class.

    Args:
        allowed_only: Whether only the allowed packages are imported: for what comes with a checkpoint.
    """
    before = dict(parsing_settings)
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*"] if allowed_only else [],
        import_path_allowlist=list(allowed_packages()) if allowed_only else [],
    )
    try:
        yield
    finally:
        parsing_settings.update(before)


def check_only_classes(value: Any, key: str = "", owner: type | None = None) -> None:
    """Refuse settings that hold a function, or whose class path names a function.

    The parser calls nothing before this check. A function that is the default of its class stays.

    Args:
        value: A setting after parsing, or all settings.
        key: Its key.
        owner: The class whose argument it is.

    Raises:
        UserError: There is a function; the message names its key.
    """
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        path = value.get("class_path")
        found = _member(path) if isinstance(path, str) else None
        if found is not None and not isinstance(found, type):
            raise UserError(f"{key} is {path!r}, which is not a class; it takes a class")
        for name, inner in value.items():
            if name == "init_args" and path is not None:
                for argument, given in vars(inner).items() if isinstance(inner, Namespace) else dict(inner).items():
                    if not _is_default(found, argument, given):
                        check_only_classes(given, f"{key}.{argument}", found)
            else:
                check_only_classes(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            check_only_classes(inner, key)
    elif callable(value) and not isinstance(value, type) and not type(value).__module__.startswith("jsonargparse"):
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
        raise UserError(f"{key} is the function {name}; settings take classes and values, and no function")


def _member(path: str) -> Any:
    """Return what a path names in the modules that the parser has imported; ``None`` for an unknown path."""
    module, _, name = path.rpartition(".")
    if module in sys.modules:
        return getattr(sys.modules[module], name, None)
    outer, _, inner = module.rpartition(".")
    return getattr(getattr(sys.modules.get(outer), inner, None), name, None)


def _is_default(owner: type | None, argument: str, value: Any) -> bool:
    """Whether a value is the default of an argument of a class or of a class above it."""
    for each in owner.__mro__ if owner is not None else ():
        if "__init__" in vars(each):
            with contextlib.suppress(ValueError, TypeError):
                parameter = inspect.signature(vars(each)["__init__"]).parameters.get(argument)
                if parameter is not None and parameter.default is value:
                    return True
    return False
