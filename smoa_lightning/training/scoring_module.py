"""What a module of Lightning does in validation, test and prediction: it scores rows and logs the metrics."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, cast

import lightning as L
from torch import nn
from transformers import PreTrainedTokenizerBase

from smoa_lightning.adapters import without_adapter
from smoa_lightning.backbones.processor import Processor
from smoa_lightning.data.encoding.task_sets import TaskSets
from smoa_lightning.data.rows.task_rows import Part
from smoa_lightning.evaluation.tasks import Divergence, TaskEvaluation
from smoa_lightning.records.metric_table import METRICS

Batch = dict[str, Any]


def computed(evaluation: TaskEvaluation, sets: TaskSets, part: Part) -> dict[str, float]:
    """Return the metrics of the scored rows of a part; the groups of its rows are the unit of standard errors."""
    return evaluation.compute({name: sets.groups(part, name) for name in evaluation.names})


class ScoringModule(L.LightningModule):
    """The passes over selection rows and report rows, with an adapter or as the base model.

    A subclass has the network and its processor. The rows are those of the trainer's ``TaskDataModule``.
    """

    evaluation: TaskEvaluation  # of the current pass

    def __init__(self) -> None:
        super().__init__()
        self.scoring_base_model = False

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The loaded backbone with its adapter."""

    @property
    @abstractmethod
    def processor(self) -> Processor:
        """The backbone's tokenizer, or for images its image processor."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The processor of a backbone that reads texts."""
        return cast("PreTrainedTokenizerBase", self.processor)

    @contextlib.contextmanager
    def as_base_model(self) -> Iterator[None]:
        """Score the base model, without its adapter, under the metric prefix ``base``."""
        self.scoring_base_model = True
        try:
            yield
        finally:
            self.scoring_base_model = False

    def _new_evaluation(self, part: Part) -> None:
        """Begin a pass over the rows of a part, with an evaluator for each of its tasks."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        sets = data.sets.scored(part)
        protocols = {name: rows.protocol for name, rows in sets.items()}
        ends = {name: rows.reply_ends() for name, rows in sets.items()}
        selecting = part == "selection" and self.trainer.state.fn == "fit"
        written = {"max_new_tokens": data.max_new_tokens, "num_beams": data.num_beams, "bert_score": data.bert_score}
        taught = self.divergence()
        evaluation = TaskEvaluation(
            protocols, self.tokenizer, selecting=selecting, ends=ends, divergence=taught, **written
        )
        self.evaluation = evaluation.to(self.device)

    def divergence(self) -> Divergence | None:
        """Return what scores the items by the KL to a teacher; None without one."""
        return None

    def score_items(self, batch: Batch, position: int = 0) -> list[dict[str, Any]]:
        """Score a batch of items of the task at a position; return one record per item."""
        off = self.scoring_base_model
        with without_adapter(self.network) if off else contextlib.nullcontext(self.network) as network:
            return self.evaluation.score(network, batch, position)

    def on_validation_epoch_start(self) -> None:
        """Begin to score the selection rows."""
        self._new_evaluation("selection")

    def on_test_epoch_start(self) -> None:
        """Begin to score the report rows."""
        self._new_evaluation("report")

    def on_predict_epoch_start(self) -> None:
        """Begin to score the report rows."""
        self._new_evaluation("report")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Score selection rows."""
        return {"items": self.score_items(batch, dataloader_idx)}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Score report rows."""
        return {"items": self.score_items(batch, dataloader_idx)}

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Score report rows; the callback ``ItemScores`` writes the records."""
        return {"items": self.score_items(batch, dataloader_idx)}

    def _log_metrics(self, prefix: str) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        part: Part = "selection" if prefix == "selection" else "report"
        for name, value in computed(self.evaluation, data.sets, part).items():
            # the evaluators gather over the processes; sync_dist averages equal numbers
            shown = name in METRICS and METRICS[name].in_progress_bar
            self.log(f"{prefix}/{name}", value, prog_bar=shown, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics on the selection rows."""
        self._log_metrics("selection")

    def on_test_epoch_end(self) -> None:
        """Log the metrics on the report rows: ``base/`` for the base model, else ``report/``."""
        self._log_metrics("base" if self.scoring_base_model else "report")
