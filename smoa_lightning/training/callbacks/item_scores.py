"""Scores of all items, as a file in the run folder: paired tests need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from smoa_lightning.common.atomic_files import write_jsonl
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.evaluation.choice import gathered
from smoa_lightning.records.record import BASE_ITEMS, ITEMS, PREDICTIONS


class ItemScores(Callback):
    """Write ``items.jsonl`` (after training), ``base_items.jsonl`` (base model) or ``predictions.jsonl``.

    Each line is an item with its ``row`` in the report split. It has a ``group`` if rows of the task share groups, such
    as replies of one conversation: the first row of the group in the file. An item with choices has ``label``,
    ``log_likelihood`` of each choice, the prediction under each normalisation, and ``nll`` and ``tokens`` of the right
    choice. An item with a reply has ``nll`` and ``tokens`` of the gold reply, ``reference`` and ``reply``, and a
    question also ``answer``, ``label`` and ``correct``. Predictions of replies also have their ``context``.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Remove the items of an earlier evaluation."""
        self.items = []

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Collect the items of a batch."""
        self.items.extend(outputs["items"])

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the items of the report rows."""
        if pl_module.scoring_base_model:
            self._write(trainer, BASE_ITEMS)
        if pl_module.frozen or not pl_module.scoring_base_model:
            self._write(trainer, ITEMS)

    def on_predict_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Remove the items of an earlier evaluation."""
        self.items = []

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Collect the items of a batch, and for replies the context as the model read it."""
        for item, ids in zip(outputs["items"], batch.get("prompt", ()), strict=False):
            item["context"] = pl_module.tokenizer.decode(ids)
        self.items.extend(outputs["items"])

    def on_predict_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the predictions."""
        self._write(trainer, PREDICTIONS)

    def _write(self, trainer: L.Trainer, name: str) -> None:
        self.items = sorted(
            gathered(self.items), key=lambda item: item.get("task", "")
        )  # gathered() has sorted them by rows
        if trainer.is_global_zero:
            if name != PREDICTIONS:
                _add_groups(self.items, trainer.datamodule)  # type: ignore[attr-defined]
            write_jsonl(Path(trainer.default_root_dir) / name, self.items)


def _add_groups(items: list[dict[str, Any]], data: TaskDataModule) -> None:
    """Add the group of each item of a task, if items of this task share groups; in place."""
    for task in dict.fromkeys(item.get("task") for item in items):
        mine = [item for item in items if item.get("task") == task]
        groups = data.sets.groups("report", task)[[item["row"] for item in mine]].tolist()
        first: dict[int, int] = {}
        for item, group in zip(mine, groups, strict=True):
            first.setdefault(group, item["row"])
        if len(first) < len(mine):
            for item, group in zip(mine, groups, strict=True):
                item["group"] = first[group]
