"""Which class a setting may name, decided from names alone: nothing is imported.

For packages that the schema describes, the schema lists the classes that a setting takes. Classes of other packages are
accepted here, and the real parser checks that they are subclasses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smoa_lightning.common.allowed_classes import FLAG, TRUSTED, is_allowed
from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.configuration.settings import CLASS_SETTINGS, matches_schema, schema
from smoa_lightning.configuration.trainer_options import check_callback_name

# Keys of JSON files from which a library takes a module to import.
MODULE_KEYS = ("class_path", "parent_library")


def check_class(key: str, class_path: Any, where: str = "") -> None:
    """Refuse a class of a described package that a setting does not take.

    Args:
        key: The setting: ``model.adapter``, ``model.optimizer`` or one of ``trainer``.
        class_path: The name. A name without a package is that of a known class, for the trainer that of any class.
        where: Start of the message: file and line.

    Raises:
        UserError: The setting does not take the class; the message names the nearest classes.
    """
    if key == "trainer.callbacks" and isinstance(class_path, str):
        check_callback_name(class_path, where)
    names = schema()["x-class-names"].get(key)
    if names is None or not isinstance(class_path, str):
        return
    what = {"model.adapter": "strategy", "model.prompt": "prompt method"}.get(key, "class")
    if "." not in class_path:
        _check_short_name(key, class_path, what, where)
        return
    package, _, name = class_path.rpartition(".")
    top = class_path.split(".")[0]
    if top in sys.stdlib_module_names:
        raise UserError(f"{where}{key}: {class_path!r} is not a class for it; the nearest is {nearest(name, names, 1)}")
    if top not in TRUSTED or not _is_described(top, key) or class_path in names:
        return
    shown = schema()["x-classes"][key].values() if key in CLASS_SETTINGS else names
    places = [known for known in dict.fromkeys(shown) if known.rpartition(".")[0] == package]
    close = nearest(name, [known.rpartition(".")[2] for known in places], 3) if places else ""
    near = the_nearest(close, f"class in {package}") if places else f"the nearest is {nearest(class_path, names, 1)}"
    raise UserError(f"{where}{key}: there is no {what} {class_path!r}; {near}")


def _check_short_name(key: str, name: str, what: str, where: str) -> None:
    """Refuse a name without a package that no described class has; with other versions the real parser decides."""
    classes = schema()["x-classes"].get(key, {})
    tops = {path.split(".")[0] for path in classes.values()}
    if not classes or name in classes or not all(map(matches_schema, tops)):
        return
    short = [known for known in classes if "." not in known]
    raise UserError(f"{where}{key}: there is no {what} {name!r}; {the_nearest(nearest(name, short, 3))}")


def _is_described(package: str, key: str) -> bool:
    """Whether the schema lists all classes of a package that a setting may take."""
    group = "lightning" if key.startswith("trainer.") else package
    return matches_schema(group) if group in (*schema()["x-versions"], "smoa_lightning") else key != "model.optimizer"


def class_paths_in(value: Any) -> Iterator[str]:
    """Yield the class paths of a value: a text, ``class_path`` of a mapping, or those of a list."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from class_paths_in(value.get("class_path"))
    elif isinstance(value, list):
        for inner in value:
            yield from class_paths_in(inner)


def other_classes(value: Any) -> list[str]:
    """Return the class paths anywhere in settings that are not in a trusted package, sorted."""
    found = {path for key, path in _texts(value) if key == "class_path" and path.split(".")[0] not in TRUSTED}
    return sorted(found)


def check_checkpoint_settings(settings: Mapping[str, Any], file: str) -> None:
    """Refuse settings of a checkpoint that name code outside the allowed packages.

    Raises:
        UserError: They do; the message names the class and the flag that allows its package.
    """
    model = settings.get("model")
    model = model if isinstance(model, Mapping) else {}
    for key in CLASS_SETTINGS:
        for class_path in class_paths_in(model.get(key.removeprefix("model."))):
            if "." in class_path:
                _check_allowed(class_path, f"the checkpoint {file!r}")
            check_class(key, class_path, f"the checkpoint {file!r}: ")
    if isinstance(model.get("budget"), Mapping):
        raise UserError(f"the checkpoint {file!r} names a file under model.budget, which no run writes")
    check_names(settings, f"the checkpoint {file!r}")


def check_names(content: Any, what: str) -> None:
    """Refuse content of a file that names code outside the allowed packages.

    Args:
        content: Mappings, lists and scalars.
        what: The file, for messages.

    Raises:
        UserError: It names such code.
    """
    for key, text in _texts(content):
        if key in MODULE_KEYS and (key != "class_path" or "." in text):  # a name alone imports nothing
            _check_allowed(text, what)
    for mapping in _mappings(content):
        kernel = next(_kernels(mapping), None)
        if kernel is not None and not is_allowed("kernels"):
            raise UserError(
                f"{what} names the attention kernel {kernel!r}, which is code of the hub; if you trust it, "
                f"add --{FLAG} kernels"
            )
        module = mapping.get("megatron_core")
        if mapping.get("megatron_config") and isinstance(module, str):
            _check_allowed(module, what)
        if mapping.get("trust_remote_code"):
            raise UserError(f"{what} sets trust_remote_code, but code of a model repository is never run")


def _kernels(mapping: Mapping[str, Any]) -> Iterator[str]:
    """Yield kernels of the hub in settings of the attention: one text, or a mapping with one for each part."""
    for key, value in mapping.items():
        if str(key).lstrip("_").startswith("attn_implementation"):
            yield from (text for _, text in _texts(value) if "/" in text)


def check_adapter_files(folder: Path) -> None:
    """Refuse an adapter folder whose JSON files name code, or whose weights are a pickle.

    Raises:
        UserError: A file names code outside the allowed packages, or there are no weights as safetensors.
    """
    for file in (folder / name for name in ("adapter_config.json", "smoa_lightning.json", "config.json")):
        if file.is_file():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
            except (ValueError, RecursionError):
                continue  # whoever reads the file reports the damage
            check_names(content, str(file))
    for pickled, safe in (
        ("adapter_model.bin", "adapter_model.safetensors"),
        ("pytorch_model.bin", "model.safetensors"),
    ):
        if (folder / pickled).is_file() and not (folder / safe).is_file():
            raise UserError(f"{folder / pickled} is a pickle, which may run code: save the adapter as {safe}")


def _check_allowed(path: str, what: str) -> None:
    if not is_allowed(path):
        package = path.split(".")[0]
        raise UserError(
            f"{what} names {path!r}, which is code of another package; if you trust it, add --{FLAG} {package}"
        )


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the nearest key and the text of every text in nested values."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in nested values."""
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _mappings(inner)
