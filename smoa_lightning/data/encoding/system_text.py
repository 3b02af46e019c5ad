"""The system text that all training rows share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from smoa_lightning.data.tasks import ReplyExample

if TYPE_CHECKING:
    from smoa_lightning.data.encoding.encoded_task import EncodedTask


class SharedText:
    """Finds the system text that all examples have, while they are encoded."""

    def __init__(self) -> None:
        """Begin without an example."""
        self._texts: set[str | None] = set()

    def add(self, example: object) -> None:
        """Take the next example; after two different ones, no more are read."""
        if len(self._texts) < 2:
            self._texts.add(system_text(example) or None)

    @property
    def text(self) -> str | None:
        """The text of all examples so far, or None."""
        return next(iter(self._texts)) if len(self._texts) == 1 else None


def shared_system_text(tasks: Iterable[EncodedTask]) -> str | None:
    """Return the system text that all training rows have, or None. No row is read: each was read to be encoded."""
    texts = {task.items("train").system_text for task in tasks}
    return texts.pop() if len(texts) == 1 else None


def system_text(example: object) -> str | None:
    """Return the system text of an example; None if it has no system message, or several."""
    if not isinstance(example, ReplyExample):
        return None
    texts = [message.content for message in example.messages if message.role == "system"]
    return texts[0] if len(texts) == 1 else None
