"""A table of sample predictions in TensorBoard, W&B, MLflow or CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.tasks.base import Labelling
from smoa_lightning.records.metric_table import prediction_field
from smoa_lightning.training.loggers.contents import Table, log_table

Rows = list[list[str]]
REPLY_HEADER = ("prompt", "gold reply", "written reply", "answer found (correct answer)")
CHOICE_HEADER = ("prompt", "choices (log-likelihood; the label in bold)", "right")
LABEL_HEADER = ("text", "label", "prediction (probability of the class)")


def reply_rows(items: list[dict[str, Any]], examples: list[Any]) -> Rows:
    """Return prompt, gold reply, written reply, and for a question the answer found in it.

    Args:
        items: Item records of the scoring (``reply``, ``reference``, and ``answer``, ``label`` of questions).
        examples: The example of each item.
    """
    rows = []
    for item, example in zip(items, examples, strict=True):
        found = f"{item['answer']} ({item['label']})" if "answer" in item else ""
        rows.append([str(example.prompt), item["reference"], item["reply"], found])
    return rows


def choice_rows(items: list[dict[str, Any]], examples: list[Any]) -> Rows:
    """Return prompt, choices with their log-likelihood, and whether the prediction is the label.

    Args:
        items: Item records of the scoring (``log_likelihood``, ``prediction_acc``, ``label``).
        examples: The example of each item.
    """
    rows = []
    for item, example in zip(items, examples, strict=True):
        choices = []
        partial = not isinstance(example.prompt, str)  # each choice has its own prompt, shown with the choice
        for index, (choice, score) in enumerate(zip(example.choices, item["log_likelihood"], strict=True)):
            text = f"{' '.join((example.prompt[index] + choice if partial else choice).split())} ({score:.2f})"
            choices.append(f"**{text}**" if index == item["label"] else text)
        right = "yes" if item[prediction_field("acc")] == item["label"] else "no"
        rows.append(["" if partial else example.prompt, "\n".join(choices), right])
    return rows


def label_rows(items: list[dict[str, Any]], examples: list[Any], names: Sequence[str]) -> Rows:
    """Return text, label and prediction: of a class its name and its probability, of a number the number.

    Args:
        items: Item records of the scoring (``label``, and ``log_likelihood`` or ``prediction``).
        examples: The example of each item.
        names: The names of the classes.
    """
    rows = []
    for item, example in zip(items, examples, strict=True):
        if "prediction" in item:
            label, found = f"{item['label']:.2f}", f"{item['prediction']:.2f}"
        else:
            best = item[prediction_field("acc")]
            label, found = names[item["label"]], f"{names[best]} ({math.exp(item['log_likelihood'][best]):.2f})"
        rows.append([example.prompt, label, found])
    return rows


class SamplePredictions(Callback):
    """Write the table ``predictions`` after each evaluation of the report rows."""

    def __init__(self, rows: int = 16) -> None:
        """Set the length of the table.

        Args:
            rows: Number of shown items, from the start of the report split.
        """
        self.rows = rows
        self.items: list[dict[str, Any]] = []

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Remove the items of an earlier evaluation."""
        self.items = []

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Collect the items of a batch."""
        self.items.extend(outputs["items"])

    def write_base_again(self, trainer: L.Trainer, data: TaskDataModule, file: Path) -> None:
        """Write the table of the base model from its items on disk."""
        if file.is_file():
            self.items = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            self._write(trainer, data, "predictions/base")

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the table."""
        tag = "predictions/base" if pl_module.scoring_base_model else "predictions/report"
        self._write(trainer, trainer.datamodule, tag)  # type: ignore[attr-defined]

    def _write(self, trainer: L.Trainer, data: TaskDataModule, tag: str) -> None:
        if not (trainer.loggers and self.items and trainer.is_global_zero):
            return
        for task, scored in data.sets.scored("report").items():
            own = [item for item in self.items if item.get("task", task) == task]
            items = sorted(own, key=lambda item: item["row"])[: self.rows]
            if not items:
                continue
            examples = [data.example("report", item["row"], task) for item in items]
            place = f"{tag}/{task}" if len(data.sets.scored("report")) > 1 else tag
            if isinstance(scored.protocol, Labelling):
                table = Table(place, LABEL_HEADER, label_rows(items, examples, scored.protocol.names))
            elif "reply" in items[0]:
                table = Table(place, REPLY_HEADER, reply_rows(items, examples))
            else:
                table = Table(place, CHOICE_HEADER, choice_rows(items, examples))
            log_table(trainer.loggers, table, trainer.global_step)
