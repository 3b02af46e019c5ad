"""Local folders and files that settings name: looked for before heavy libraries are imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smoa_lightning.common.paths import check_model_folder, check_rows, check_teacher_name, local_path
from smoa_lightning.configuration.composition import Settings, value_at


def check_places(settings: Settings, command: str) -> None:
    """Refuse a backbone, rows or a teacher where nothing is. URLs and names on the hub are not looked up.

    ``params`` counts without rows, so it does not look for them.

    Args:
        settings: The settings of files and flags; a value of a flag may be its text.
        command: ``fit`` or ``params``.

    Raises:
        UserError: The message names the setting and the place.
    """

    def value(key: str) -> Any:
        return value_at(settings, key)

    if value("model.backbone.source") == "local" and isinstance(path := value("model.backbone.path"), str):
        check_model_folder(path)
    if command == "fit" and value("data.source") == "local":
        for place in _places(value("data.path")):
            check_rows(place, local_path(place).exists())
    if isinstance(teacher := value("model.distillation.teacher"), str):
        check_teacher_name(teacher)


def _places(given: Any) -> Iterator[str]:
    """Yield the local places of a setting; a flag that holds a mapping or a list is left to the parser."""
    if isinstance(given, str) and not given.lstrip().startswith(("{", "[")) and "://" not in given:
        yield given
    elif isinstance(given, Mapping | list):
        for each in given.values() if isinstance(given, Mapping) else given:
            yield from _places(each)
