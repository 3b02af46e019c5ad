"""Generic chats: messages with roles, made of the everyday dialogues of other draws."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from tools.embedded import everyday

COUNTS = {"train": 160, "validation": 40, "test": 40}


@cache
def _rows(split: str) -> tuple[tuple[str, ...], ...]:
    source = random.Random(f"chat {split}")
    drawn: dict[tuple[str, ...], None] = {}
    while len(drawn) < COUNTS[split]:
        said, _ = everyday.draw(source, split)
        drawn[said[: len(said) // 2 * 2]] = None
    return tuple(drawn)


def rows(split: str) -> list[dict[str, Any]]:
    """Return ``{"messages": [{"role": "user" | "assistant", "content": str}]}``; the user begins, always the same."""
    return [
        {
            "messages": [
                {"role": "user" if place % 2 == 0 else "assistant", "content": text} for place, text in enumerate(said)
            ]
        }
        for said in _rows(split)
    ]
