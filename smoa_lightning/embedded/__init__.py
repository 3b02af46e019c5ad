"""What the project brings along for machines without a network: generated rows, a generated corpus and a small
backbone.

Importing this package loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.embedded import (
    activities,
    boolq,
    everyday,
    instruct,
    messages,
    persona,
    piqa,
    science,
    social,
    sums,
    winogrande,
)

SPLITS = ("train", "validation", "test")

#: task name -> generator of its rows, ``(split) -> rows`` in the Hub schema of the task
GENERATORS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "boolq": boolq.rows,
    "piqa": piqa.rows,
    "social_i_qa": social.rows,
    "hellaswag": activities.rows,
    "winogrande": winogrande.rows,
    "arc_easy": science.arc_easy_rows,
    "arc_challenge": science.arc_challenge_rows,
    "openbookqa": science.openbookqa_rows,
    "gsm8k": sums.gsm8k_rows,
    "metamath_qa": sums.metamath_rows,
    "convai2": persona.rows,
    "daily_dialog": everyday.rows,
    "commonsense_instruct": instruct.rows,
    "choice": instruct.choice_rows,
    "instruction": instruct.instruction_rows,
    "chat": messages.rows,
}
TASKS: tuple[str, ...] = tuple(GENERATORS)

__all__ = ["GENERATORS", "SPLITS", "TASKS", "backbone_folder", "rows"]


def rows(task: str, split: str) -> list[dict[str, Any]]:
    """Return the embedded rows of a task in its Hub schema; deterministic, a fresh list at every call.

    Raises:
        UserError: the task has no embedded rows, or the split is not train, validation or test.

    >>> sorted(rows("piqa", "validation")[0])
    ['goal', 'label', 'sol1', 'sol2']
    """
    if task not in GENERATORS:
        raise UserError(
            f"there are no embedded rows for task {task!r}; the nearest tasks that have some: {nearest(task, TASKS)}"
        )
    if split not in SPLITS:
        raise UserError(f"the embedded rows of {task!r} have no split {split!r}; nearest: {nearest(split, SPLITS)}")
    return GENERATORS[task](split)


def backbone_folder() -> Path:
    """Return the folder of the shipped backbone (a Hugging Face folder: config, tokenizer, safetensors)."""
    return Path(__file__).resolve().parent / "backbone"
