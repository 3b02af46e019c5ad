"""Classes as their source files tell them: parameters, types, defaults and meanings, without importing anything.

Importing torch, lightning, transformers and peft takes seconds; parsing the few files that say which settings there are
takes a tenth of one. What cannot be read this way is left open, never guessed.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from smoa_lightning.configuration.docstring import argument_texts

WITHOUT_FIELDS = ("PushToHubMixin", "ABC", "object")  # bases from elsewhere that add no argument


@dataclass(frozen=True)
class Module:
    """A module's syntax tree and what its top level defines.

    Attributes:
        name: Dotted name.
        package: Whether it is a package's ``__init__``.
        names: Name -> the statement that defines or imports it.
    """

    name: str
    package: bool
    names: dict[str, ast.stmt] = field(hash=False, compare=False)


@dataclass(frozen=True)
class ClassSource:
    """A class definition and the module that it stands in."""

    module: Module
    node: ast.ClassDef = field(hash=False, compare=False)

    @property
    def docstring(self) -> str:
        """The class's own docstring."""
        return ast.get_docstring(self.node) or ""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a field of a dataclass.

    Attributes:
        name: Its name.
        type: Its annotation, ``None`` without one.
        default: Its default, ``None`` where it has none.
        help: What it means, from the docstring or the field's metadata.
        module: Where names in type and default are to be looked up.
    """

    name: str
    type: ast.expr | None = field(hash=False, compare=False)
    default: ast.expr | None = field(hash=False, compare=False)
    help: str
    module: Module


@cache
def read_module(name: str) -> Module | None:
    """Parse a module, found by the place of its top-level package; ``None`` if there is no such source file."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations if spec else None) or []:
        path = Path(place, *rest)
        package = (path / "__init__.py").is_file()
        file = path / "__init__.py" if package else path.with_suffix(".py")
        if file.is_file():
            return Module(name, package, _definitions(ast.parse(file.read_text(encoding="utf-8")).body))
    return None


def _definitions(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom):
            found |= {alias.asname or alias.name: statement for alias in statement.names}
        elif isinstance(statement, ast.Assign):
            found |= {target.id: statement for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = statement
    return found


def look_up(module: Module, name: str) -> tuple[Module, ast.stmt] | None:
    """Follow imports, within one top-level package, to the statement that defines a name."""
    statement = module.names.get(name)
    if not isinstance(statement, ast.ImportFrom):
        return None if statement is None else (module, statement)
    parts = module.name.split(".")
    base = parts[: len(parts) - statement.level + module.package] if statement.level else []
    target = ".".join([*base, *([statement.module] if statement.module else [])])
    if target.split(".")[0] != parts[0]:
        return None
    original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
    source = read_module(target)
    return look_up(source, original) if source and source.name != module.name else None


def find_class(class_path: str) -> ClassSource | None:
    """Return the class at a dotted path, ``None`` if the sources do not show it."""
    module_name, _, name = class_path.rpartition(".")
    module = read_module(module_name) if module_name else None
    found = look_up(module, name) if module else None
    return ClassSource(found[0], found[1]) if found and isinstance(found[1], ast.ClassDef) else None


def parameters(source: ClassSource) -> dict[str, Parameter] | None:
    """Return what a class is made with, by name; ``None`` if the source does not tell: ``**kwargs``, no __init__."""
    init = _method(source, "__init__")
    if init is not None:
        return None if init.args.kwarg else function_parameters(source, init)
    return _fields(source) if _is_dataclass(source.node) else None


def method_parameters(source: ClassSource, name: str) -> dict[str, Parameter]:
    """Return the parameters of a method of a class."""
    method = _method(source, name)
    return function_parameters(source, method) if method else {}


def method_docstring(source: ClassSource, name: str) -> str:
    """Return the docstring of a method of a class."""
    method = _method(source, name)
    return (ast.get_docstring(method) if method else None) or ""


def _method(source: ClassSource, name: str) -> ast.FunctionDef | None:
    return next((n for n in source.node.body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def function_parameters(source: ClassSource, function: ast.FunctionDef) -> dict[str, Parameter]:
    """Return the parameters of a method but the first, with what its docstring or the class's says of them."""
    texts = argument_texts(source.docstring) | argument_texts(ast.get_docstring(function) or "")
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    pairs = list(zip(positional, [*defaults, *given.defaults], strict=True))[1:]
    pairs += zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return {a.arg: Parameter(a.arg, a.annotation, d, texts.get(a.arg, ""), source.module) for a, d in pairs}


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return any(ast.unparse(name) in ("dataclass", "dataclasses.dataclass") for name in names)


def _fields(source: ClassSource) -> dict[str, Parameter] | None:
    """The fields of a dataclass after those of its bases; ``None`` if a base cannot be read."""
    found: dict[str, Parameter] = {}
    for base in reversed(source.node.bases):
        parent = _base(source.module, base)
        inherited = _fields(parent) if parent else None
        if inherited is None and ast.unparse(base) not in WITHOUT_FIELDS:
            return None
        found |= inherited or {}
    if not _is_dataclass(source.node):
        return found
    texts = argument_texts(source.docstring)
    for statement in source.node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            options = _field_options(statement.value)
            if options is None or "ClassVar" in ast.unparse(statement.annotation):
                found.pop(name, None)  # a subclass may take an argument away
                continue
            text = _help(options.get("metadata")) or texts.get(name, "")
            found[name] = Parameter(name, statement.annotation, options.get("default"), text, source.module)
    return found


def _base(module: Module, base: ast.expr) -> ClassSource | None:
    """The class that a name or dotted name in a list of bases means, also where it is imported from peft."""
    top, _, rest = ast.unparse(base).rpartition(".")
    if top:
        return find_class(f"{top}.{rest}") if top.split(".")[0] == "peft" else None
    found = look_up(module, rest)
    if found and isinstance(found[1], ast.ClassDef):
        return ClassSource(found[0], found[1])
    statement = module.names.get(rest)  # our configurations derive from peft's
    if isinstance(statement, ast.ImportFrom) and not statement.level and (statement.module or "").startswith("peft"):
        original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == rest)
        return find_class(f"{statement.module}.{original}")
    return None


def _field_options(value: ast.expr | None) -> dict[str, ast.expr] | None:
    """Keywords of ``field(...)``, a plain default as ``default``; ``None`` if the field is no argument of __init__."""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) in ("field", "dataclasses.field")):
        return {} if value is None else {"default": value}
    options = {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    init = options.get("init")
    if isinstance(init, ast.Constant) and init.value is False:
        return None
    factory = options.get("default_factory")
    if isinstance(factory, ast.Name):
        options["default"] = ast.parse(f"{factory.id}()", mode="eval").body
    elif isinstance(factory, ast.Lambda):
        options["default"] = factory.body
    return options


def _help(metadata: ast.expr | None) -> str:
    if isinstance(metadata, ast.Dict):
        for key, value in zip(metadata.keys, metadata.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "help":
                try:
                    return " ".join(str(ast.literal_eval(value)).split())
                except ValueError:
                    return ""
    return ""
