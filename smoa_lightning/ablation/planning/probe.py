"""A callback that times a few steps of a fit and the scoring of a few batches of each part, and then ends the fit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from smoa_lightning.data.batches.loaders import BatchLoader
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.rows.task_rows import Part
from smoa_lightning.training.callbacks import Forgetting, RankMonitor
from smoa_lightning.training.callbacks.forgetting import document_scores, documents
from smoa_lightning.training.scoring_module import computed

WARM_UP, TIMED = 1, 3  # number of optimizer steps, and of batches of a scoring
TEXTS = 10  # number of scored documents of the general text


class ProbeFinished(Exception):
    """Ends a fit or test after its timing."""


def limited(length: int, limit: int | float | None) -> int:
    """Return the number of batches that a ``limit_*_batches`` of the trainer leaves.

    >>> limited(10, 3), limited(10, 0.25), limited(10, 1.0), limited(10, None)
    (3, 2, 10, 10)
    """
    if isinstance(limit, int):
        return min(limit, length)
    return length if limit is None else int(length * limit)


class Probe(Callback):
    """Time the first steps of a fit, then a few batches of each scoring, then end it.

    Args:
        val_limit: The trainer's ``limit_val_batches``.
        test_limit: The trainer's ``limit_test_batches``.

    Attributes:
        steps: Seconds of each optimizer step, including the first, without those of a teacher that fills a cache.
        teacher: Seconds of this teacher in each of these steps.
        tokens: Tokens of each of these steps.
        begun: Time at the start of the first batch; ``None`` before it.
        total_steps: Optimizer steps of the whole run, from the trainer.
        selection: Timing of the selection rows.
        report: Timing of the report rows.
    """

    def __init__(self, val_limit: int | float | None, test_limit: int | float | None) -> None:
        self.limits: dict[Part, int | float | None] = {"selection": val_limit, "report": test_limit}
        self.steps: list[float] = []
        self.teacher: list[float] = []
        self.tokens: list[int] = []
        self.begun: float | None = None
        self.total_steps = 0
        self.selection: Scored | None = None
        self.report: Scored | None = None
        self._seconds, self._seen, self._since = 0.0, 0, 0.0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock of a micro-batch."""
        if self.begun is None:
            self.begun, self.total_steps = time.monotonic(), int(trainer.estimated_stepping_batches)
        self._since = _now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop the clock; after the last timed step, time the scorings."""
        self._seconds += _now() - self._since
        if trainer.global_step == len(self.steps):
            return  # within an accumulated step
        rehearsal = None if pl_module.teacher_cache is None else pl_module.teacher_cache.rehearsal
        self.teacher.append(0.0 if rehearsal is None else rehearsal.batch_seconds - sum(self.teacher))
        self.steps.append(self._seconds - self.teacher[-1])
        self.tokens.append(pl_module.seen_tokens - self._seen)
        self._seconds, self._seen = 0.0, pl_module.seen_tokens
        if len(self.steps) >= min(WARM_UP + TIMED, self.total_steps):
            self._score(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Time only the scoring, for a model that is not trained."""
        self.begun = time.monotonic()
        self._score(trainer, pl_module)

    def _score(self, trainer: L.Trainer, module: Any) -> None:
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        module.network.eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            if not module.frozen and data.selection_rows != 0:
                self.selection = score(trainer, module, data.val_dataloader(), "selection", self.limits["selection"])
            if data.has_report:
                self.report = score(trainer, module, data.test_dataloader(), "report", self.limits["report"])
        raise ProbeFinished

    @property
    def step_seconds(self) -> float:
        """Mean seconds of the steps after the first; of the first step if it is the only one."""
        return fmean(self.steps[WARM_UP:] or self.steps)

    @property
    def teacher_seconds(self) -> float:
        """Mean seconds of the teacher in the same steps."""
        return fmean(self.teacher[WARM_UP:] or self.teacher)

    @property
    def step_tokens(self) -> float:
        """Mean tokens of the same steps."""
        return fmean(self.tokens[WARM_UP:] or self.tokens)


@dataclass
class Scored:
    """The timing of a part of the rows, from some of its batches.

    Attributes:
        seconds: Estimated seconds for the whole part.
        scored: Number of rows in the timed batches.
        metrics: Metrics on the timed batches.
    """

    seconds: float
    scored: int
    metrics: Mapping[str, float]


def score(trainer: L.Trainer, module: Any, loaders: Any, part: Part, limit: int | float | None) -> Scored:
    """Time the scoring of some batches of a part, and the callbacks that measure something in addition to its rows.

    The batches are sorted by length. The timed batches are spread evenly over them, so that their mean is that of all.
    """
    each: list[BatchLoader] = loaders if isinstance(loaders, list) else [loaders]
    begin = module.on_validation_epoch_start if part == "selection" else module.on_test_epoch_start
    begin()
    seconds, scored = 0.0, 0

    def run(loader: BatchLoader, numbers: list[int], position: int) -> float:
        began = _now()
        for batch in BatchLoader(loader.rows, [loader.batches[n] for n in numbers], loader.collate):
            module.score_items(trainer.strategy.batch_to_device(batch), position)
        return _now() - began

    spread = {i: _spread(limited(len(loader), limit)) for i, loader in enumerate(each)}
    for position, numbers in spread.items():
        run(each[position], numbers[len(numbers) // 2 :][:WARM_UP], position)
    begin()  # discards the warm-up
    for position, numbers in spread.items():
        if numbers:
            share = limited(len(each[position]), limit) / len(numbers)
            seconds += run(each[position], numbers, position) * share
            scored += sum(len(each[position].batches[n]) for n in numbers)
    seconds += _callback_seconds(trainer, module, part)
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    return Scored(seconds, scored, computed(module.evaluation, data.sets, part) if scored else {})


def _callback_seconds(trainer: L.Trainer, module: Any, part: Part) -> float:
    """Return the seconds of further measurements: ranks with the selection rows, general text with the report rows."""
    seconds = 0.0
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        began = _now()
        if part == "selection" and isinstance(callback, RankMonitor):
            callback.on_validation_end(trainer, module)
            seconds += _now() - began
        elif part == "report" and isinstance(callback, Forgetting) and callback.text is not None:
            bos = trainer.datamodule.encoding.add_bos  # type: ignore[attr-defined]
            rows = callback.encoded(documents(callback.text, callback.max_documents), module, bos)
            some = rows[:: max(1, len(rows) // TEXTS)]
            began = _now()
            document_scores(module.network, some, callback.batch_tokens)
            seconds += (_now() - began) * sum(map(len, rows)) / sum(map(len, some))
    return seconds


def _spread(length: int) -> list[int]:
    """Return the middle indices of equal pieces of ``range(length)``, one piece for each timed batch.

    >>> _spread(30), _spread(2)
    ([5, 15, 25], [0, 1])
    """
    count = min(TIMED, length)
    return [int((i + 0.5) * length / count) for i in range(count)]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # kernels run asynchronously
    return time.perf_counter()
