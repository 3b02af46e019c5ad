"""The registry of tasks. A new data set is one ``Task`` here, one embedded generator and one YAML file."""

from __future__ import annotations

from smoa_lightning.data.tasks.base import (
    ChoiceExample,
    Field,
    Label,
    LabelledTexts,
    Row,
    RowError,
    Task,
    Text,
    TextLabel,
    Texts,
    Truth,
)
from smoa_lightning.data.tasks.choice import PIQA, SOCIAL_I_QA
from smoa_lightning.data.tasks.completion import HELLASWAG, WINOGRANDE
from smoa_lightning.data.tasks.science import ARC_CHALLENGE, ARC_EASY, OPENBOOKQA
from smoa_lightning.data.tasks.yes_no import BOOLQ
from smoa_lightning.errors import UserError, nearest

# The order is that of the tables in the papers that use these eight.
TASKS: dict[str, Task] = {
    task.name: task for task in (BOOLQ, PIQA, SOCIAL_I_QA, HELLASWAG, WINOGRANDE, ARC_EASY, ARC_CHALLENGE, OPENBOOKQA)
}


def get_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        UserError: no such task; names the nearest.
    """
    if name not in TASKS:
        raise UserError(f"data.task: unknown task {name!r}; did you mean {nearest(name, TASKS)}?")
    return TASKS[name]


__all__ = [
    "ARC_CHALLENGE",
    "ARC_EASY",
    "BOOLQ",
    "HELLASWAG",
    "OPENBOOKQA",
    "PIQA",
    "SOCIAL_I_QA",
    "TASKS",
    "WINOGRANDE",
    "ChoiceExample",
    "Field",
    "Label",
    "LabelledTexts",
    "Row",
    "RowError",
    "Task",
    "Text",
    "TextLabel",
    "Texts",
    "Truth",
    "get_task",
]
