"""A small model, rows of every task and a general text, shipped with the package for machines without a network.

All of them are data files, which ``tools/embedded`` in the repository generates. Importing this package loads no torch.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from smoa_lightning.common.errors import UserError, nearest

__all__ = ["SPLITS", "TASKS", "backbone_folder", "held_out_text", "rows", "rows_folder"]

SPLITS = ("train", "validation", "test")
TASKS = (
    "boolq",
    "piqa",
    "social_i_qa",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
    "gsm8k",
    "metamath_qa",
    "convai2",
    "daily_dialog",
    "commonsense_instruct",
    "choice",
    "instruction",
    "chat",
)


def rows(task: str, split: str) -> list[dict[str, Any]]:
    """Return the embedded rows of a task in its Hub schema: the same rows in a fresh list at every call.

    Raises:
        UserError: the task has no embedded rows, or the split is not train, validation or test.

    >>> sorted(rows("piqa", "validation")[0])
    ['goal', 'label', 'sol1', 'sol2']
    """
    if task not in TASKS:
        raise UserError(f"task {task!r} has no embedded rows; the nearest tasks that have some: {nearest(task, TASKS)}")
    if split not in SPLITS:
        raise UserError(f"the embedded rows of {task!r} have no split {split!r}; nearest: {nearest(split, SPLITS)}")
    return _read(f"{task}/{split}.jsonl.gz")


def held_out_text() -> list[str]:
    """Return general documents like those that the embedded model was trained on, but held out from its training."""
    return [row["text"] for row in _read("general_text.jsonl.gz")]


def _read(name: str) -> list[dict[str, Any]]:
    with gzip.open(rows_folder() / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def rows_folder() -> Path:
    """Return the folder of the shipped rows: ``<task>/<split>.jsonl.gz`` and ``general_text.jsonl.gz``."""
    return Path(__file__).resolve().parent / "rows"


def backbone_folder() -> Path:
    """Return the folder of the shipped backbone (a Hugging Face folder: config, tokenizer, safetensors)."""
    return Path(__file__).resolve().parent / "backbone"
