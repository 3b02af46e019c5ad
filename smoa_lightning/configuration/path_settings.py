"""The settings that are paths: where ``~`` is the home folder, and which paths a checkpoint stores as absolute ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

from smoa_lightning.common.paths import absolute, local_path

# Places of a run's files. The signature of a run does not contain them, so they may change before it is made.
PLACES = ("run.root", "run.folder", "ckpt_path")
# Sources. What reads them expands ``~``, and signatures contain them as they are written.
SOURCES = ("model.backbone.path", "data.path")
# Sources that are paths only if something is there, and may be a model on the hub -> their words, which are no paths.
MAYBE_SOURCES: dict[str, tuple[str, ...]] = {"model.distillation.teacher": (), "forgetting.text": ("embedded",)}


def expand_places(settings: MutableMapping[str, Any]) -> None:
    """Expand ``~`` in the places of a run's files.

    Args:
        settings: Settings that are read and written by dotted keys.
    """
    for key in PLACES:
        value = settings.get(key)
        if isinstance(value, str):
            settings[key] = str(local_path(value))


def absolute_sources(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with absolute paths of everything that they read, so that any working directory will do.

    >>> absolute_sources({"data": {"path": {"train": "/rows/a.csv"}}})
    {'data': {'path': {'train': '/rows/a.csv'}}}
    """
    result = copy.deepcopy(dict(config))
    for key in (*SOURCES, *MAYBE_SOURCES):
        *parents, last = key.split(".")
        within: Any = result
        for name in parents:
            within = within.get(name) if isinstance(within, dict) else None
        value = within.get(last) if isinstance(within, dict) else None
        if value is not None and (key in SOURCES or (value not in MAYBE_SOURCES[key] and local_path(value).exists())):
            within[last] = _absolute(within[last])
    return result


def _absolute(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _absolute(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_absolute(inner) for inner in value]
    return absolute(value) if isinstance(value, str) else value
