"""Settings that a source ignores, such as the folder of a backbone from the hub: refused before heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from smoa_lightning.common.errors import UserError

# Setting -> the sources that ignore it, and what the user means instead.
IGNORED = {
    "model.backbone.path": (("auto", "hub", "embedded"), "set model.backbone.source to local, or remove the path"),
    "model.backbone.name": (("embedded",), "set model.backbone.source to hub, or remove the name"),
    "model.backbone.revision": (("local", "embedded"), "set model.backbone.source to hub, or remove the revision"),
    "data.repository": (("local", "embedded"), "set data.source to hub, or remove the repository"),
    "data.revision": (("local", "embedded"), "set data.source to hub, or remove the revision"),
}
ALWAYS = ("model.backbone.path",)  # also if a later file or flag chose the source


def check_ignored(value: Callable[[str], Any], default: Callable[[str], Any], order: Mapping[str, int]) -> None:
    """Refuse a setting that the source of the run ignores.

    A file for one backbone may be followed by a file or flag with a different source, such as ``embedded`` for a trial.
    So the setting is refused if it comes with the source or after it.

    Args:
        value: Key -> its value.
        default: Key -> its default.
        order: Key -> the number of the last file that sets it; flags have the largest number.

    Raises:
        UserError: The message names the setting, the source and the remedy.
    """
    for key, (sources, remedy) in IGNORED.items():
        source = f"{key.rpartition('.')[0]}.source"
        given, chosen = value(key), value(source)
        overruled = order.get(source, -1) > order.get(key, -1) and key not in ALWAYS
        if given in (None, "null", default(key)) or chosen not in sources or overruled:
            continue
        raise UserError(f"{key} is {given!r}, but {source} is {chosen!r}, which ignores it: {remedy}")
