"""What the parser may import for a class path, and what a class path may name."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from jsonargparse._common import ImportDenied, parsing_settings  # the public interface cannot remove rules
from jsonargparse._util import import_object  # there is no public one

from smoa_lightning.common.allowed_classes import allowed_packages
from smoa_lightning.common.errors import UserError, most_alike, nearest, one_line, the_nearest


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


def import_class(path: str, key: str, extras: Mapping[str, str]) -> type:
    """Import a class that a setting names, by the rules of the parser.

    Args:
        path: Its path.
        key: The setting, for messages.
        extras: Package -> the extra of this package that installs it.

    Raises:
        UserError: It cannot be imported, may not be imported, or is no class.
    """
    try:
        with import_policy(allowed_only=False):
            found = import_object(path)
    except ImportDenied:
        raise UserError(f"{key}: {path!r} is not allowed as the class of a setting") from None
    except Exception as error:  # a module may raise anything when it is imported
        module, _, name = path.rpartition(".")
        if isinstance(error, AttributeError) and module in sys.modules:
            known = _classes_of(module)
            close = f"; {the_nearest(nearest(name, known, 3))}" if known else ""
            raise UserError(f"{key}: there is no class {path!r}{close}") from None
        package = path.split(".")[0]
        remedy = f"; it comes with: pip install 'smoa-lightning[{extras[package]}]'" if package in extras else ""
        if not remedy and isinstance(error, ModuleNotFoundError) and error.name == package:
            remedy = _missing_module(package)
        if isinstance(error, UserError):  # of ``register_method``
            raise UserError(f"{key}: {error}") from error
        raise UserError(f"{key}: cannot import {path!r}: {one_line(error)}{remedy}") from error
    if not isinstance(found, type):
        raise UserError(f"{key}: {path!r} is not a class; it takes a class")
    return found


def _classes_of(module: str) -> list[str]:
    """Return the classes of a module: those of its own package, or all of them if there are none."""
    classes = {word: member for word, member in vars(sys.modules[module]).items() if isinstance(member, type)}
    package = module.split(".")[0]
    return [word for word, member in classes.items() if member.__module__.split(".")[0] == package] or list(classes)


def _missing_module(package: str) -> str:
    """Return what to do about a module that Python does not find."""
    files = {file.stem: (file.stem,) for file in Path.cwd().glob("*.py")}
    near = most_alike(package, files, 1)
    close = f"; the nearest file here is {near[0]}.py" if near else ""
    return f"{close}; for a file of yours, put its folder into the environment variable PYTHONPATH"


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
