"""Which strategies and optimizers the cells of a study may have: their settings are the keys that its axes may name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.study.axes import names_file
from smoa_lightning.ablation.study.study_file import find_file
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.located_yaml import Steps, Tree
from smoa_lightning.configuration.resolve import Resolver
from smoa_lightning.configuration.settings import CLASS_SETTINGS, DEFAULT_CLASSES, READABLE

ADAPTER, OPTIMIZER = "model.adapter", "model.optimizer"
_HOLDERS = {"class_path", "adapter", ADAPTER, "optimizer", OPTIMIZER}  # keys under which a text is a class path


def classes_of(tree: Tree, base: Sequence[Path], resolver: Resolver) -> dict[str, set[str]]:
    """Return the class paths of ``model.adapter`` and ``model.optimizer``, wherever the study or its files name them.

    Args:
        tree: The study.
        base: The files that its runs begin with.
        resolver: Composes them.

    Raises:
        UserError: A file of the base can not be read.
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
        in_optimizer = text.startswith("torch.optim.") or bool({"optimizer", OPTIMIZER} & {*steps})
        if steps[0] == "axes" and names_file(text, str(steps[-1])):
            with contextlib.suppress(UserError):  # told with its place when the axis is read
                add([find_file(text, tree.mark(*steps), "axes")])
        elif text.startswith(READABLE) or (_HOLDERS & {*steps[-2:]} and "." in text):
            found[OPTIMIZER if in_optimizer else ADAPTER].add(text)
    return found


def _texts(value: Any, steps: Steps) -> Iterator[tuple[Steps, str]]:
    """Every text in nested values, with the keys and positions that lead to it."""
    if isinstance(value, str):
        yield steps, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*steps, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*steps, index))
