"""The registry of tasks. A new data set is one ``Task`` here, one embedded generator and one YAML file."""

from __future__ import annotations

from smoa_lightning.data.tasks.base import ChoiceExample, Field, Label, Row, RowError, Task, Text, TextLabel
from smoa_lightning.data.tasks.choice import PIQA, SOCIAL_I_QA
from smoa_lightning.errors import UserError, nearest

TASKS: dict[str, Task] = {task.name: task for task in (PIQA, SOCIAL_I_QA)}


def get_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        UserError: no such task; names the nearest.
    """
    if name not in TASKS:
        raise UserError(f"data.task: unknown task {name!r}; did you mean {nearest(name, TASKS)}?")
    return TASKS[name]


__all__ = [
    "PIQA",
    "SOCIAL_I_QA",
    "TASKS",
    "ChoiceExample",
    "Field",
    "Label",
    "Row",
    "RowError",
    "Task",
    "Text",
    "TextLabel",
    "get_task",
]
