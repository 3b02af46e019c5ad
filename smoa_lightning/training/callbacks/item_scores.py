"""Keep the score of every item, and write it beside the record: paired tests need items, not means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from smoa_lightning.common.atomic_files import write_jsonl
from smoa_lightning.evaluation.choice import gathered
from smoa_lightning.records.record import BASE_ITEMS, ITEMS


class ItemScores(Callback):
    """Write ``items.jsonl`` (after training), ``base_items.jsonl`` (untouched) or ``predictions.jsonl``.

    One line an item: ``row`` in the report split, and for choices ``label``, ``log_likelihood`` of each choice and the
    prediction under each normalisation; for replies ``nll`` and ``tokens`` of the gold one, ``reference``, ``reply``,
    and ``answer``, ``label`` and ``correct`` of questions. Predictions of replies have their ``context`` too.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Forget the items of an earlier evaluation."""
        self.items = []

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Collect one batch's items."""
        self.items.extend(outputs["items"])

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the items of the report rows."""
        if pl_module.scoring_base_model:
            self._write(trainer, BASE_ITEMS)
        if pl_module.frozen or not pl_module.scoring_base_model:
            self._write(trainer, ITEMS)

    def on_predict_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Forget the items of an earlier evaluation."""
        self.items = []

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Collect one batch's items, each reply with the context that the model read, cut and rendered as it was."""
        for item, ids in zip(outputs["items"], batch.get("prompt", ()), strict=False):
            item["context"] = pl_module.tokenizer.decode(ids)
        self.items.extend(outputs["items"])

    def on_predict_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the predictions."""
        self._write(trainer, "predictions.jsonl")

    def _write(self, trainer: L.Trainer, name: str) -> None:
        self.items = sorted(gathered(self.items), key=lambda item: item.get("task", ""))  # of a task by their rows
        if trainer.is_global_zero:
            write_jsonl(Path(trainer.default_root_dir) / name, self.items)
