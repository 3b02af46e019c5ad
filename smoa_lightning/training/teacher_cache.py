"""A teacher whose distributions of the training rows are computed once, before training, and read from disk."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn
from tqdm import tqdm

from smoa_lightning.common.console import ON_STDOUT, no_bar
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import local_path
from smoa_lightning.data.batches.loaders import BatchLoader
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.encoding.tokenizer_digest import tokenizer_digest
from smoa_lightning.objectives.distillation import PIECE
from smoa_lightning.objectives.objective import Cacheable
from smoa_lightning.objectives.top_distributions import TopDistributions, joined, top_distributions
from smoa_lightning.training.distribution_files import DistributionFiles, key_of_row

if TYPE_CHECKING:
    from smoa_lightning.training.module import FineTuneModule
    from smoa_lightning.training.teacher import Teacher

SETTING = "model.distillation.cache_folder"
LITTLE = 0.8  # mean mass below which a cache leaves out much of the teacher
BYTES, SECONDS = 64 << 20, 60.0  # of a piece: a run that is killed loses at most one
logger = logging.getLogger(__name__)
Loaded = Callable[[], nn.Module]


@dataclass
class Rehearsal:
    """A teacher that computes the batches of a fit that a plan times.

    Attributes:
        teacher: The loaded teacher.
        tokens: Tokens of the rows that the folder lacks.
        load_seconds: Seconds to load the teacher.
        batch_seconds: Seconds in which it has computed batches.
    """

    teacher: nn.Module
    tokens: int
    load_seconds: float
    batch_seconds: float = 0.0


class TeacherCache:
    """The distributions of a teacher for the training rows of a run.

    A row is found by its tokens (its pixels) and its counted positions. So order, packing, seeds, limits of rows and
    settings of prompts may differ between the runs that share a folder. Rows that it lacks are added.

    Args:
        module: The student, with its settings.
        teacher: The teacher, which is not loaded.
        data: The training rows.
        precision: ``trainer.precision``.

    Attributes:
        statistics: For the record: numbers of rows and positions, and the mean and the smallest mass; empty before
            ``fill``.
        rehearsal: What a plan has measured; None in a run.
    """

    def __init__(self, module: FineTuneModule, teacher: Teacher, data: TaskDataModule, precision: str) -> None:
        assert module.distillation is not None
        self.settings, self.data = module.distillation, data
        self.cacheable = cast(Cacheable, module.objective.cacheable)
        facts = _facts(module, teacher, data, precision)
        self.columns = int(facts["vocabulary"])
        self.top = min(self.settings.top, self.columns)
        name = f"top{self.top}-temperature{float(self.settings.temperature)}"  # each has a folder of its own
        self.files = DistributionFiles(local_path(str(self.settings.cache_folder)) / name, facts, SETTING)
        self.statistics: dict[str, Any] = {}
        self.rehearsal: Rehearsal | None = None

    # ---------------------------------------------------------------------------------------------------- training

    def of(self, batch: dict[str, Any], device: torch.device) -> TopDistributions:
        """Return the distributions of a batch of training rows, on a device.

        Raises:
            UserError: A row was not among the training rows when the run began.
        """
        if self.rehearsal is not None:
            began = time.perf_counter()
            top = self._computed(self.rehearsal.teacher, batch)
            self.rehearsal.batch_seconds += time.perf_counter() - began
        else:
            contents = [key_of_row(row) for row, count in self.cacheable.contents(batch, self.settings) if count]
            found = self.files.find(np.array(contents, np.int64)) if contents else self._none()
            if found is None:
                raise UserError(f"{SETTING}: a training row changed after the run began, so the cache does not have it")
            top = found
        return cast(TopDistributions, move_data_to_device(top, device))

    def _none(self) -> TopDistributions:
        """Return the distributions of a batch without a counted position."""
        empty = torch.zeros(0, self.top)
        return TopDistributions(empty.int(), empty, empty[:, 0], self.columns)

    def _computed(self, teacher: nn.Module, batch: dict[str, Any]) -> TopDistributions:
        """Return the distributions of a batch on the device of the teacher, on the CPU."""
        with torch.no_grad():
            logits = self.cacheable.logits(teacher, batch, self.settings)
            top = top_distributions(logits, self.columns, self.top, self.settings.temperature, PIECE)
        return cast(TopDistributions, move_data_to_device(top, torch.device("cpu")))

    # ---------------------------------------------------------------------------------------------------- the pass

    def fill(self, trainer: L.Trainer, load: Loaded) -> None:
        """Add the training rows that the folder lacks; the processes of a run share the work.

        Args:
            trainer: The trainer of the run.
            load: Loads the teacher; it is called only if a row lacks.

        Raises:
            UserError: The folder is that of another teacher or of other rows, or a file is damaged.
        """
        keys, rows = self._rows()
        self.files.read()
        began, computed, strategy = time.monotonic(), 0, trainer.strategy
        if strategy.broadcast(len(self.files.lacking(keys)) > 0):
            with self.files.writing() if trainer.is_global_zero else contextlib.nullcontext():
                strategy.barrier()
                self.files.read()
                lacking = self.files.lacking(keys)
                computed = len(lacking)
                if computed:
                    logger.info("the teacher computes %s rows for %s", f"{computed:,}", self.files.folder)
                    self._add(rows[lacking], load(), trainer)
                strategy.barrier()
            self.files.read()
        self._describe(keys, computed, time.monotonic() - began if computed else 0.0, trainer.is_global_zero)

    def _describe(self, keys: np.ndarray, computed: int, seconds: float, is_first: bool) -> None:
        """Set the statistics for the record, and say how much of the teacher the cache has."""
        positions, mean, smallest = self.files.masses(keys)
        self.statistics = {
            "folder": str(self.files.folder),
            "top": self.top,
            "rows": len(keys),
            "positions": positions,
            "computed_rows": computed,
            "seconds": seconds,
            "mean_mass": mean,
            "smallest_mass": smallest,
        }
        logger.info("%s", cache_text(self.statistics))
        if mean < LITTLE and is_first and self.columns - self.top > 1:  # of one more class, the rest is the mass
            logger.warning(
                "the distributions of the teacher in the cache have %.0f %% of its mass (mean at temperature %g): "
                "raise model.distillation.cache_top, or lower model.distillation.temperature",
                100 * mean,
                self.settings.temperature,
                extra=ON_STDOUT,
            )

    def rehearse(self, load: Loaded) -> None:
        """Prepare a fit that is timed: nothing is written, and a teacher whose rows lack computes each batch."""
        keys, rows = self._rows()
        self.files.read()
        lacking = rows[self.files.lacking(keys)]
        if len(lacking):
            began, tokens = time.perf_counter(), int(self.data.sets.training_items().lengths[lacking].sum())
            self.rehearsal = Rehearsal(load(), tokens, time.perf_counter() - began)

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the hash of each training row with a counted position, and its number."""
        keys, numbers = [], []
        loader = self.data.plain_batches()
        for batch, members in zip(loader, loader.batches, strict=True):
            for number, (row, count) in zip(members, self.cacheable.contents(batch, self.settings), strict=True):
                if count:
                    keys.append(key_of_row(row))
                    numbers.append(number)
        return np.array(keys, np.int64), np.array(numbers, np.int64)

    def _add(self, rows: np.ndarray, teacher: nn.Module, trainer: L.Trainer) -> None:
        """Compute the rows of this process, and write them in pieces."""
        loader = self.data.plain_batches(rows, (trainer.global_rank, trainer.world_size))
        device = next(teacher.parameters()).device
        pending: list[tuple[int, int]] = []
        tops: list[TopDistributions] = []
        size, since = 0, time.monotonic()
        with trainer.precision_plugin.forward_context():
            for batch in _shown(loader):
                contents = self.cacheable.contents(batch, self.settings)
                top = self._computed(teacher, move_data_to_device(batch, device))
                pending += [(key_of_row(row), count) for row, count in contents if count]
                tops.append(top)
                size += sum(each.nbytes for each in (top.tokens, top.log_p, top.log_rest))
                if size > BYTES or time.monotonic() - since > SECONDS:
                    self._write(pending, tops)
                    pending, tops, size, since = [], [], 0, time.monotonic()
        if pending:
            self._write(pending, tops)

    def _write(self, pending: list[tuple[int, int]], tops: list[TopDistributions]) -> None:
        keys, counts = np.array(pending, np.int64).T
        self.files.add(np.ascontiguousarray(keys), np.ascontiguousarray(counts), joined(tops))


def open_cache(module: FineTuneModule, data: TaskDataModule, precision: str) -> TeacherCache | None:
    """Return the cache of a run, ``None`` for a run without one; its rows are read, and no weight is.

    Raises:
        UserError: The folder is that of another teacher or of other rows, or the rows change in each epoch.
    """
    if module.distillation is None or module.distillation.cache_folder is None:
        return None
    if data.augmentation:
        raise UserError(
            f"{SETTING} is set, but data.augmentation changes the images in each epoch: set one of them to null"
        )
    assert module.teacher is not None
    cache = TeacherCache(module, module.teacher, data, precision)
    cache.files.check()
    return cache


def cache_text(statistics: dict[str, Any]) -> str:
    """Return what a cache holds of the distributions, as a sentence.

    >>> cache_text({"top": 64, "rows": 8, "positions": 40, "mean_mass": 0.9987, "smallest_mass": 0.81})
    'teacher: the 64 largest probabilities at 40 positions of 8 rows have 99.87 % of the mass (mean), at least 81.00 %'
    """
    return (
        f"teacher: the {statistics['top']} largest probabilities at {statistics['positions']:,} positions of "
        f"{statistics['rows']:,} rows have {statistics['mean_mass']:.2%} of the mass (mean), at least "
        f"{statistics['smallest_mass']:.2%}"
    ).replace("%", " %")


def _shown(loader: BatchLoader) -> Any:
    return tqdm(loader, desc="teacher", unit="batch", delay=3, leave=False, disable=no_bar())


def _facts(module: FineTuneModule, teacher: Teacher, data: TaskDataModule, precision: str) -> dict[str, Any]:
    """Return what the distributions depend on, besides the content of a row.

    Raises:
        UserError: The size of a vocabulary is not known.
    """
    found = teacher.facts()
    backbone = found.get("backbone", {})
    digests = {**backbone.get("files", {}), **backbone.get("sha256", {}), **found.get("adapter", {})}
    digests |= {"commit": backbone["commit"]} if backbone.get("commit") else {}
    head = module.objective.head
    sizes = [len(head.names)] if head.is_new else [module.limits.vocabulary, teacher.limits.vocabulary]
    known = [size for size in sizes if size is not None]
    if not known:
        raise UserError(f"{SETTING}: the config of {teacher.settings.teacher!r} has no vocab_size: set it to null")
    processor: Any = module.processor
    text = processor.to_json_string if head.reads_images else functools.partial(tokenizer_digest, processor)
    trained = {name: rows.rows(rows.task.train_split).sha256 for name, rows in data.sets.trained.items()}
    return {
        "teacher": digests,
        "training rows": trained,
        "tokenizer": hashlib.sha256(text().encode()).hexdigest()[:16],
        "vocabulary": min(known),
        "number format": f"{teacher.config.dtype}, {teacher.config.quantization or 'not quantised'}, {precision}",
    }
