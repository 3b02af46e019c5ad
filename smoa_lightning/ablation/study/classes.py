"""The strategies and optimizers of a study's cells. Axes may set the settings of these classes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.study.axes import names_file
from smoa_lightning.ablation.study.study_file import find_file
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.composition import Composer
from smoa_lightning.configuration.settings import CLASS_SETTINGS, DEFAULT_CLASSES, class_path_of
from smoa_lightning.configuration.yaml_files import LocatedYaml, Steps

ADAPTER, OPTIMIZER = "model.adapter", "model.optimizer"
_CLASS_KEYS = {"class_path", "adapter", ADAPTER, "optimizer", OPTIMIZER}  # keys with a class path as value


def classes_of(tree: LocatedYaml, base: Sequence[Path], resolver: Composer) -> dict[str, set[str]]:
    """Return all class paths of ``model.adapter`` and ``model.optimizer`` in the study and its files.

    Args:
        tree: The study.
        base: The base files of the study.
        resolver: Composes the files.

    Raises:
        UserError: A base file cannot be read.
    """
    found = {key: {DEFAULT_CLASSES[key]} if key in DEFAULT_CLASSES else set() for key in CLASS_SETTINGS}

    def add(files: Sequence[Path]) -> None:
        model = resolver.settings(files).get("model") or {}
        for key in CLASS_SETTINGS:
            value = model.get(key.removeprefix("model."))
            if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
                found[key].add(value["class_path"])

    add(base)
    layers = [layer for layer, _ in tree.value["overrides"]]
    for steps, text in [*_texts(tree.value.get("axes"), ("axes",)), *_texts(layers, ("overrides",))]:
        owners = [key for key in CLASS_SETTINGS if class_path_of(key, text)]
        named = [key for key in owners if {key, key.removeprefix("model.")} & {*steps}]  # a prompt has two settings
        owner = next(iter([*named, *owners]), None)
        if steps[0] == "axes" and names_file(text, str(steps[-1])):
            with contextlib.suppress(UserError):  # reported with its place when the axis is read
                add([find_file(text, tree.location(*steps), "axes")])
        elif owner is not None:
            found[owner].add(text)
        elif _CLASS_KEYS & {*steps[-2:]} and "." in text:  # a class of a different package
            found[OPTIMIZER if {"optimizer", OPTIMIZER} & {*steps} else ADAPTER].add(text)
    return found


def _texts(value: Any, steps: Steps) -> Iterator[tuple[Steps, str]]:
    """Yield every text in nested values, with its path of keys and positions."""
    if isinstance(value, str):
        yield steps, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*steps, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*steps, index))
