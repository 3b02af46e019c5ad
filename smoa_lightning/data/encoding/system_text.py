"""The system text that all training rows share."""

from __future__ import annotations

from collections.abc import Iterable

from smoa_lightning.data.rows.task_rows import TaskRows
from smoa_lightning.data.tasks import ReplyExample

RELEASED = 256  # rows between two releases of memory


def shared_system_text(tasks: Iterable[TaskRows]) -> str | None:
    """Return the system text that all training rows have, or None.

    Rows are read up to the first that differs, so only rows with a common system text are all read.
    """
    found: str | None = None
    for task in tasks:
        rows = task.rows(task.split_of("train"))
        for number, index in enumerate(task.indices("train").tolist()):
            text = system_text(task.protocol.example(rows[index]))
            if not text or (found is not None and text != found):
                return None
            found = text
            if number % RELEASED == RELEASED - 1:
                rows.release()
    return found


def system_text(example: object) -> str | None:
    """Return the system text of an example; None if it has no system message, or several."""
    if not isinstance(example, ReplyExample):
        return None
    texts = [message.content for message in example.messages if message.role == "system"]
    return texts[0] if len(texts) == 1 else None
