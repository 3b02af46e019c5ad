"""The rows of one task: their source, and the choice of training, selection and report rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from smoa_lightning import embedded
from smoa_lightning.backbones.hub import Source, commit_of, resolve_source
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.rows.locations import SPLIT_NAMES
from smoa_lightning.data.rows.overlap import Overlap, overlap
from smoa_lightning.data.rows.row_table import RowTable
from smoa_lightning.data.rows.sources import Origin, Provenance, has_split, known_splits, load_split
from smoa_lightning.data.rows.split_files import LocalPath, check_path, has_files, is_training_rows, split_files
from smoa_lightning.data.rows.splits import default_selection_rows, hold_out, not_held_out, subset
from smoa_lightning.data.tasks import Classification, Protocol, Task
from smoa_lightning.records.selection import HELD_OUT, ON_REPORT, ON_TRAINED, Selection

logger = logging.getLogger(__name__)
Part = Literal["train", "selection", "report"]


@dataclass(frozen=True)
class RowSettings:
    """The settings that decide which rows of a task are used. ``TaskDataModule`` explains the fields."""

    source: str = "auto"
    path: LocalPath | None = None
    repository: str | None = None
    revision: str | None = None
    bad_rows: Literal["error", "skip"] = "error"
    limit_train_rows: int | None = None
    train_per_class: int | None = None
    limit_report_rows: int | None = None
    selection: Selection = HELD_OUT
    selection_rows: int | None = None
    report_split: str | None = None
    first_label: int = 0
    seed: int = 0
    cache: bool = True


class TaskRows:
    """Rows of one task under one protocol, read on first use.

    Args:
        task: The task.
        protocol: It makes the examples and decides how they are scored.
        settings: Which rows.

    Raises:
        UserError: settings that do not fit the task.
    """

    def __init__(self, task: Task, protocol: Protocol, settings: RowSettings) -> None:
        self.task, self.protocol, self.settings = task, protocol, settings
        self.repository = settings.repository or task.hub_repository
        self.revision = settings.revision or (None if settings.repository else task.hub_revision)
        self.report_split = task.train_split if self.scores_training else settings.report_split or task.report_split
        self.source: Source | None = None
        self.commit: str | None = None  # on the hub
        self._rows: dict[str, RowTable] = {}
        self._provenance: dict[str, Provenance] = {}
        known = known_splits(task, settings.source)
        if settings.report_split is not None and self.report_split not in known:
            raise UserError(
                f"data.report_split: task {task.name!r} has no split {self.report_split!r};"
                f" did you mean {nearest(self.report_split, known)}?"
            )
        if self.scores_training and settings.report_split not in (None, task.train_split):
            raise UserError(
                f"data.report_split is {settings.report_split!r}, but data.selection is {ON_TRAINED}, which reports on"
                f" the trained rows of {task.train_split!r}: remove data.report_split."
            )
        if self.report_split == task.train_split and not self.scores_training:
            raise UserError(f"data.report_split: {self.report_split!r} is trained on, so it cannot be reported.")

    # ---- the source of the rows

    def resolve(self) -> Source:
        """Decide the source without loading a row; later calls return the same answer.

        Raises:
            UserError: ``source: hub`` and no answer; ``source: local`` and no such path; a task without rows there.
        """
        if self.source is None:
            requested = self.settings.source
            if self.repository is None and requested in ("hub", "auto"):
                raise UserError(
                    f"data.source: task {self.task.name!r} reads your own rows and has none on the hub;"
                    " set data.source: local and data.path: FILE or FOLDER, or data.repository: USER/NAME"
                    " (data.source: embedded takes generated rows, for a trial)."
                )
            available = self.task.name in embedded.TASKS
            self.source = resolve_source(
                requested, self.repository, "dataset", self.revision, embedded_available=available
            )
            if self.source == "local":
                check_path(self.settings.path)
            elif self.source == "hub":
                assert self.repository is not None
                self.commit = commit_of(self.repository, "dataset", self.revision)
        return self.source

    @property
    def origin(self) -> Origin:
        """The place of the rows, with the fields of the resolved source only."""
        source = self.resolve()
        if source == "hub":
            return Origin("hub", repository=self.repository, revision=self.revision, commit=self.commit)
        return Origin(source, path=self.settings.path)

    @property
    def provenance(self) -> dict[str, Any]:
        """Task, version, protocol and source, and the fields of ``Provenance`` for each split read so far."""
        return {
            "task": self.task.name,
            "task_version": self.task.version,
            "protocol": self.protocol.name,
            **({"rules": rules} if (rules := getattr(self.protocol, "rules", None)) else {}),
            "source": self.source,
            "splits": {split: provenance.as_dict() for split, provenance in self._provenance.items()},
        }

    @property
    def has_report(self) -> bool:
        """Whether there are report rows; a single local file holds training rows only.

        Raises:
            UserError: ``data.report_split`` names a split that does not exist.
        """
        path = self.settings.path
        if self.settings.report_split is not None and self.resolve() == "local" and not is_training_rows(path):
            split_files(path, self.report_split)
        try:
            return has_split(self.task, self.report_split, self.origin)
        except UserError as error:
            others = self._other_report_splits()
            if not others or self.settings.report_split is not None:
                raise
            raise UserError(
                f"{str(error).rstrip('.')}; task {self.task.name!r} reports on {self.report_split!r}: to report on "
                f"other rows, add --data.report_split {others[0]}."
            ) from error

    def _other_report_splits(self) -> list[str]:
        """Return the splits with files, other than those of training and report."""
        path, used = self.settings.path, (self.task.train_split, self.report_split)
        names = [name for name in SPLIT_NAMES if name not in used]
        return [name for name in names if has_files(path, name)] if self.resolve() == "local" else []

    def rows(self, split: str) -> RowTable:
        """Return the checked rows of a split, read on first use."""
        if split not in self._rows:
            settings = self.settings
            loaded = load_split(self.task, split, self.origin, settings.bad_rows, settings.cache)
            self._rows[split], self._provenance[split] = loaded
            if remark := self._remark(split):
                logger.info("%s: %s.", self._provenance[split].location, remark)
        return self._rows[split]

    def _remark(self, split: str) -> str | None:
        """Return what the task says about the rows of a split, such as messages that nothing is learned from."""
        remarks = self.task.remarks
        return None if remarks is None else remarks.say(self._rows[split].counts)

    # ---- the rows of each part

    def indices(self, part: Part) -> np.ndarray:
        """Return the rows of a part as indices into its split, (N,) int64.

        Raises:
            UserError: ``data.selection_rows`` leaves no rows for training, or no group is small enough for it.
        """
        settings = self.settings
        if self.scores_training:  # the limits are prefixes of one order, so the scored rows are among the trained ones
            limits = settings.limit_train_rows, None if part == "train" else settings.limit_report_rows
            limit = min((limit for limit in limits if limit is not None), default=None)
            return subset(np.arange(len(self.rows(self.task.train_split))), limit, seed=0)
        if part == "report":
            # A fixed seed, so that runs with different seeds are compared on the same items.
            return subset(np.arange(len(self.rows(self.report_split))), settings.limit_report_rows, seed=0)
        if part == "selection" and self.selects_on_report:
            return self.indices("report")
        training, selection = self._sides
        if part == "selection":
            return selection
        if settings.train_per_class is not None:
            return self._of_each_class(training, settings.train_per_class)
        return subset(training, settings.limit_train_rows, settings.seed)

    def _of_each_class(self, training: np.ndarray, count: int) -> np.ndarray:
        """Return ``count`` training rows of each class, chosen by the seed; a larger count contains the smaller ones.

        Raises:
            UserError: the task has no classes, or a class has fewer rows.
        """
        if not isinstance(self.protocol, Classification):
            raise UserError(
                f"data.train_per_class is {count}, but task {self.task.name!r} has no classes; set "
                "data.limit_train_rows to choose a number of rows"
            )
        rows = self.rows(self.task.train_split)
        labels = np.array([self.protocol.example(rows[int(row)]).label for row in training])
        chosen = []
        for number, name in enumerate(self.protocol.names):
            own = training[labels == number]
            if len(own) < count:
                raise UserError(
                    f"data.train_per_class is {count}, but the class {name!r} of {self.task.name} has only {len(own)} "
                    "training rows that are not held out; the largest valid value is that of the smallest class"
                )
            chosen.append(subset(own, count, self.settings.seed))
        return np.sort(np.concatenate(chosen))

    @cached_property
    def _sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The training rows (training, selection), before a limit; see ``hold_out``."""
        settings, rows = self.settings, self.rows(self.task.train_split)
        number = default_selection_rows(len(rows)) if settings.selection_rows is None else settings.selection_rows
        if number == 0 or self.selects_on_report:
            return np.arange(len(rows)), np.arange(0)
        training, selection = hold_out(rows.groups, number, settings.seed)
        if not len(training) or not len(selection):
            raise UserError(not_held_out(rows.groups, number, settings.selection_rows is None))
        return training, selection

    @property
    def selects_on_report(self) -> bool:
        """Whether the report rows select the checkpoint, as published scores often do; then no row is held out."""
        return self.settings.selection == ON_REPORT

    @property
    def scores_training(self) -> bool:
        """Whether the training rows themselves are scored, to measure capacity; they do not depend on the seed."""
        return self.settings.selection == ON_TRAINED

    def split_of(self, part: Part) -> str:
        """Return the split that holds the rows of a part."""
        reports = part == "report" or (part == "selection" and self.selects_on_report)
        return self.report_split if reports else self.task.train_split

    def example(self, part: Part, row: int) -> Any:
        """Return the example of a row index, as in ``batch["row"]``, without few-shot prompt."""
        return self.protocol.example(self.rows(self.split_of(part))[row])

    def facts(self) -> dict[str, Any]:
        """Return the number of bad rows left out of each split, and the overlap of training and report split.

        ``train_report_overlap`` counts the report rows of a group (for PIQA a goal) that also has training rows.
        ``ignored_columns`` are the columns that hold values and are not read, if there are any. ``remarks`` are what
        the task says about a split.
        """
        found: dict[str, Any] = {"bad_rows": {split: read.num_bad_rows for split, read in self._provenance.items()}}
        if self.task.train_split in self._rows and self.report_split in self._rows and not self.scores_training:
            found["train_report_overlap"] = self.overlap.same_group
        if ignored := sorted({name for rows in self._rows.values() for name in rows.ignored}):
            found["ignored_columns"] = ignored
        if said := {split: remark for split in self._rows if (remark := self._remark(split))}:
            found["remarks"] = said
        return found

    @cached_property
    def overlap(self) -> Overlap:
        """The used report rows that are used training rows too, or share a group with one."""
        limited = (self.settings.limit_train_rows, self.settings.train_per_class) != (None, None)
        parts: tuple[Part, ...] = ("train",) if self.selects_on_report else ("train", "selection")
        used = np.unique(np.concatenate([self.indices(part) for part in parts])) if limited else None
        return overlap(self.rows(self.task.train_split), self.rows(self.report_split), used, self.indices("report"))
