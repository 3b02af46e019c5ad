"""A task with the settings of a run that change how its rows are read: names of fields, first label, class names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from smoa_lightning.data.tasks import get_task
from smoa_lightning.data.tasks.base import Task
from smoa_lightning.data.tasks.generic import CHOICE, task_with_fields, with_first_label
from smoa_lightning.data.tasks.images import IMAGE_CLASSIFICATION, with_class_names


def configured_task(
    name: str,
    fields: Mapping[str, str | Sequence[str]] | None,
    first_label: int | None,
    class_names: Callable[[], Sequence[str] | None],
) -> Task:
    """Return a task as a run reads it.

    Args:
        name: Name of the task.
        fields: ``data.fields``.
        first_label: ``data.first_label``, for the task ``choice`` alone.
        class_names: Called for the names of the classes of your own images.

    Raises:
        UserError: The task does not exist, or does not fit a setting.
    """
    task = task_with_fields(get_task(name), fields)
    if name == CHOICE.name:
        return with_first_label(task, first_label or 0)
    return with_class_names(task, class_names()) if name == IMAGE_CLASSIFICATION.name else task
