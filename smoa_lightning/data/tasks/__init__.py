"""The registry of tasks. A new data set needs one ``Task`` here, one generator of embedded rows and one YAML file."""

from __future__ import annotations

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.tasks.base import (
    ChoiceExample,
    Classification,
    CountError,
    Field,
    Generation,
    ImageExample,
    Label,
    LabelledExample,
    LabelledTexts,
    Likelihood,
    Message,
    Missing,
    Name,
    Protocol,
    Regression,
    ReplyExample,
    Row,
    RowError,
    Task,
    Text,
    TextLabel,
    Texts,
    Truth,
)
from smoa_lightning.data.tasks.chat import CHAT
from smoa_lightning.data.tasks.choice import PIQA, SOCIAL_I_QA
from smoa_lightning.data.tasks.completion import HELLASWAG, WINOGRANDE
from smoa_lightning.data.tasks.dialogue import CONVAI2, DAILY_DIALOG
from smoa_lightning.data.tasks.generic import CHOICE, INSTRUCTION, task_with_fields
from smoa_lightning.data.tasks.glue import GLUE
from smoa_lightning.data.tasks.images import IMAGES
from smoa_lightning.data.tasks.instruct import COMMONSENSE_INSTRUCT
from smoa_lightning.data.tasks.mathematics import GSM8K, METAMATH_QA
from smoa_lightning.data.tasks.phone_book import PHONE_BOOK
from smoa_lightning.data.tasks.published import protocol_of
from smoa_lightning.data.tasks.science import ARC_CHALLENGE, ARC_EASY, OPENBOOKQA
from smoa_lightning.data.tasks.yes_no import BOOLQ

# The order of the tables in the papers that use these eight tasks.
EIGHT = (BOOLQ, PIQA, SOCIAL_I_QA, HELLASWAG, WINOGRANDE, ARC_EASY, ARC_CHALLENGE, OPENBOOKQA)
OTHERS = (COMMONSENSE_INSTRUCT, GSM8K, METAMATH_QA, CONVAI2, DAILY_DIALOG, CHOICE, INSTRUCTION, CHAT, PHONE_BOOK)
TASKS: dict[str, Task] = {task.name: task for task in EIGHT + OTHERS + GLUE + IMAGES}
_SHIPPED = frozenset(TASKS)


def register_task(task: Task) -> Task:
    """Add a task of your own, so that ``data.task`` and the commands of this process know it.

    The workers of a study import the program of this process, as the start method ``spawn`` of multiprocessing does.

    Returns:
        The task.

    Raises:
        UserError: A different task has this name.
    """
    if TASKS.get(task.name, task) is not task:
        raise UserError(f"there is a task {task.name!r} already; give yours a different name")
    TASKS[task.name] = task
    return task


def registered_tasks() -> list[str]:
    """Return the names of the tasks that the user's program has registered."""
    return [name for name in TASKS if name not in _SHIPPED]


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
    "CHAT",
    "CHOICE",
    "COMMONSENSE_INSTRUCT",
    "CONVAI2",
    "DAILY_DIALOG",
    "EIGHT",
    "GLUE",
    "GSM8K",
    "HELLASWAG",
    "IMAGES",
    "INSTRUCTION",
    "METAMATH_QA",
    "OPENBOOKQA",
    "PHONE_BOOK",
    "PIQA",
    "SOCIAL_I_QA",
    "TASKS",
    "WINOGRANDE",
    "ChoiceExample",
    "Classification",
    "CountError",
    "Field",
    "Generation",
    "ImageExample",
    "Label",
    "LabelledExample",
    "LabelledTexts",
    "Likelihood",
    "Message",
    "Missing",
    "Name",
    "Protocol",
    "Regression",
    "ReplyExample",
    "Row",
    "RowError",
    "Task",
    "Text",
    "TextLabel",
    "Texts",
    "Truth",
    "get_task",
    "protocol_of",
    "register_task",
    "registered_tasks",
    "task_with_fields",
]
