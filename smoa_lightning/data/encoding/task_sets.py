"""The rows of a run: one set for each task that is trained on or reported on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from smoa_lightning.backbones.hub import Source
from smoa_lightning.backbones.limits import Limits
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode_examples import Encoding
from smoa_lightning.data.encoding.encoded_task import EncodedTask, EncodingSettings
from smoa_lightning.data.encoding.items import LazyItems
from smoa_lightning.data.encoding.mixed_items import MixedItems
from smoa_lightning.data.rows.class_names import named_classes
from smoa_lightning.data.rows.locations import joined
from smoa_lightning.data.rows.mixture import check_weights, mix
from smoa_lightning.data.rows.overlap import report_overlap
from smoa_lightning.data.rows.row_table import RowTable
from smoa_lightning.data.rows.task_rows import Part, RowSettings
from smoa_lightning.data.tasks import Task, protocol_of
from smoa_lightning.data.tasks.base import ProtocolName
from smoa_lightning.data.tasks.configured import configured_task
from smoa_lightning.data.tasks.generic import CHOICE
from smoa_lightning.data.tasks.images import IMAGE_CLASSIFICATION
from smoa_lightning.records.metric_table import COMMON
from smoa_lightning.records.selection import ON_REPORT, ON_TRAINED

if TYPE_CHECKING:
    from smoa_lightning.backbones.processor import Processor

MIXTURE = "mixture"


class TaskSets:
    """Rows of one task, of a mixture, or of different tasks for training and report.

    Set ``processor`` before rows are encoded.

    Args:
        name: Name of the task, or ``mixture``.
        settings: Which rows of each task. In a mixture the limit of training rows is for all tasks together. With
            several tasks the path is a folder that holds one folder for each task.
        encoding: How they are encoded.
        mixture: With the name ``mixture``: the training tasks, by their size or by weight.
        report_tasks: The tasks of the report; None: the training tasks.
        protocol: Name of the protocol; None: the default of each task.
        fields: Field of the task -> its name in the rows, if the names differ.
        rules: Published rules of generated replies; None: those of the package.
        class_names: The names of the classes of your own images; None: the folders of the images.

    Raises:
        UserError: an unknown task, split or protocol; settings that exclude each other.
    """

    def __init__(
        self,
        name: str,
        settings: RowSettings,
        encoding: EncodingSettings | None = None,
        mixture: list[str] | dict[str, float] | None = None,
        report_tasks: list[str] | None = None,
        protocol: ProtocolName | None = None,
        fields: dict[str, str | list[str]] | None = None,
        rules: str | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        path = settings.path
        self.name: str = name
        names, self.weights = check_weights(mixture) if name == MIXTURE else ([name], None)
        if mixture is not None and name != MIXTURE:
            raise UserError(f"data.mixture is set, but data.task is {name!r}: set data.task: mixture, or remove it.")
        reported = names if report_tasks is None else report_tasks
        several = len({*names, *reported}) > 1
        if several and (settings.repository or settings.revision or fields or isinstance(path, dict)):
            raise UserError(
                "data: repository, revision, fields and a path for each split are for one task, not for several."
            )
        if settings.selection == ON_TRAINED and (name == MIXTURE or reported != names):
            raise UserError(
                f"data.selection is {ON_TRAINED}, which reports on the trained rows of one task: remove data.mixture"
                " and data.report_tasks."
            )
        if settings.selection == ON_REPORT and not {*names} <= {*reported}:
            raise UserError(
                f"data.selection is {ON_REPORT}, but data.report_tasks has no {min({*names} - {*reported})}, so no"
                " report rows would select: add it, or remove data.selection."
            )
        each = replace(settings, limit_train_rows=None) if name == MIXTURE else settings

        def rows_of(name: str) -> EncodedTask:
            column = str((fields or {}).get("label", "label"))
            names = partial(named_classes, settings, class_names, column)
            kind = configured_task(name, fields, settings.first_label, names)
            here = replace(each, path=joined(str(path), name)) if several and path is not None else each
            return EncodedTask(kind, protocol_of(kind, protocol, rules), here, encoding)

        if settings.first_label and CHOICE.name not in (*names, *reported):
            raise UserError(f"data.first_label is for the task 'choice', but data.task is {name!r}: remove it.")
        if class_names is not None and IMAGE_CLASSIFICATION.name not in (*names, *reported):
            raise UserError(
                f"data.class_names is for the task 'image_classification', but data.task is {name!r}: remove it; texts "
                "with classes of your own are rows of the task 'choice', with the classes as choices "
                "(docs/tutorials/own_rows.md)."
            )
        sets = {name: rows_of(name) for name in dict.fromkeys([*names, *reported])}
        self.trained = {name: sets[name] for name in names}
        self.reported = {name: sets[name] for name in reported}
        self._settings = settings
        self._processor: Processor | None = None
        self._mixed: MixedItems | None = None

    @property
    def all(self) -> dict[str, EncodedTask]:
        """The rows by task: those trained on and those reported on."""
        return self.trained | self.reported

    @property
    def _first(self) -> EncodedTask:
        return next(iter(self.trained.values()))

    @property
    def task(self) -> Task:
        """The task, or the first one of a mixture."""
        return self._first.task

    @property
    def report_split(self) -> str:
        """The split of the report; with several tasks that of the first one."""
        return next(iter(self.reported.values())).report_split

    @property
    def encoding(self) -> Encoding:
        """How examples become tokens; each set decides whether it uses a chat template."""
        return self._first.encoding_settings.encoding

    @property
    def processor(self) -> Processor | None:
        """The tokenizer of the base model, or its image processor."""
        return self._processor

    @processor.setter
    def processor(self, processor: Processor | None) -> None:
        self._processor = processor
        for rows in self.all.values():
            rows.processor = processor

    def fit_context(self, limits: Limits) -> None:
        """Set what the model can be fed; call it before ``setup``.

        A ``max_length`` above the context becomes the context, since the file of a task is for models with any context.
        """
        for rows in self.all.values():
            rows.limits, settings = limits, rows.encoding_settings
            length = min(settings.encoding.max_length, limits.context or settings.encoding.max_length)
            encoding = replace(settings.encoding, max_length=length, vocabulary=limits.vocabulary)
            rows.encoding_settings = replace(settings, encoding=encoding)

    def scored(self, part: Part) -> dict[str, EncodedTask]:
        """Return the sets that a part scores: ``selection`` or ``report``."""
        return self.reported if part == "report" else self.trained

    def primary(self, part: Part) -> str:
        """Return the primary metric of a part: that of its tasks if they agree, else the metric that all tasks have."""
        protocols = [rows.protocol for rows in self.scored(part).values()]
        names = {p.metric if part == "report" else p.selection_metric for p in protocols}
        return names.pop() if len(names) == 1 else COMMON

    def table_facts(self, part: Part) -> dict[str, Any]:
        """Return what a table of results shows in addition to the metrics, see ``records.tables``."""
        protocols = {name: rows.protocol for name, rows in self.scored(part).items()}
        tasks = {n: (p.name, p.metric if part == "report" else p.selection_metric) for n, p in protocols.items()}
        name = next(iter(tasks)) if len(tasks) == 1 else self.name
        return {"name": name, "source": self.source, "primary": self.primary(part), "tasks": tasks}

    def resolve(self) -> Source:
        """Decide the sources without loading a row; later calls return the same answer.

        Raises:
            UserError: a source that does not exist; several tasks with different sources.
        """
        sources = {name: rows.resolve() for name, rows in self.all.items()}
        if len(set(sources.values())) > 1:
            listed = ", ".join(f"{name} {source}" for name, source in sources.items())
            raise UserError(f"data.source: the tasks have different sources ({listed}); name one source.")
        return self._first.resolve()

    @property
    def source(self) -> Source | None:
        """The source of the rows, or None before ``resolve``."""
        return self._first.source

    @property
    def provenance(self) -> dict[str, Any]:
        """The task, version, protocol, source and splits of the rows read so far; with several tasks those of each."""
        if len(self.all) == 1:
            return self._first.provenance
        sets = {name: rows.provenance for name, rows in self.all.items()}
        facts = {"task": self.name, "source": self.source, "tasks": sets, "trained": list(self.trained)}
        return facts | {"weights": self.weights, "reported": list(self.reported)}

    @property
    def has_report(self) -> bool:
        """Whether there are report rows; a single local file holds training rows only."""
        return all(rows.has_report for rows in self.reported.values())

    @property
    def without_report(self) -> str:
        """What a user can set to have report rows where there are none."""
        train, report, path = self.task.train_split, self.report_split, self._settings.path
        if self.source != "local" or len(self.all) > 1:
            return "data.report_tasks can name more tasks"
        if isinstance(path, dict):
            return f"to have a report, add {report!r} to data.path"
        return (
            f"to have a report, set data.path to a folder with {train} and {report}, or to "
            f"{{{train}: {path}, {report}: PLACE}}"
        )

    def rows(self, split: str) -> RowTable:
        """Return the checked rows of a split of the only (or first) task."""
        return self._first.rows(split)

    def indices(self, part: Part) -> list[int]:
        """Return the rows of a part of the only (or first) task as indices into its split."""
        indices: list[int] = self._first.indices(part).tolist()
        return indices

    def example(self, part: Part, row: int, task: str | None = None) -> Any:
        """Return the example of a row index, as in ``batch["row"]``; by default of the first task."""
        sets = self.scored(part)
        return (sets[task] if task else next(iter(sets.values()))).example(part, row)

    def groups(self, part: Part, task: str | None = None) -> np.ndarray:
        """Return a number for each row of the split of a part; rows of one group have the same number."""
        sets = self.scored(part)
        rows = sets[task] if task else next(iter(sets.values()))
        return rows.rows(rows.split_of(part)).groups

    def encode(self, part: Part) -> None:
        """Encode the rows of a part of all its tasks, if they are not encoded yet."""
        for rows in self.scored(part).values():
            rows.items(part)
        if part == "train":
            self.training_items()

    def training_items(self) -> LazyItems:
        """Return the encoded training rows; a mixture has those of all its tasks one after the other."""
        if len(self.trained) == 1:
            return self._first.items("train")
        if self._mixed is None:
            tables = {name: rows._tokens("train") for name, rows in self.trained.items()}
            sizes = {name: len(items) for name, items in tables.items()}
            settings = self._settings
            self._mixed = MixedItems(tables, *mix(sizes, self.weights, settings.limit_train_rows, settings.seed))
        return self._mixed

    def report_overlaps(self) -> None:
        """Log which report rows are training rows too, for each task that has both."""
        for name in self.trained.keys() & self.reported.keys():
            if self.reported[name].has_report and not self.reported[name].scores_training:
                report_overlap(name, self.reported[name].overlap)

    def summary(self) -> dict[str, Any]:
        """Return the statistics of each encoded part; with a mixture also its rows, in total and for each task."""
        if len(self.all) == 1:
            return self._first.summary()
        facts = {name: rows.summary() for name, rows in self.all.items()}
        if self._mixed is not None:
            facts[MIXTURE] = {"train": self._mixed.statistics(), "rows": self._mixed.num_rows_of_tasks()}
        return facts
