"""The rows of a data module by their names in ``TaskSets``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoa_lightning.backbones.hub import Source
from smoa_lightning.data.encoding.encode_examples import Encoding
from smoa_lightning.data.encoding.task_sets import TaskSets
from smoa_lightning.data.rows.row_table import RowTable
from smoa_lightning.data.rows.task_rows import Part
from smoa_lightning.data.tasks import Task

if TYPE_CHECKING:
    from smoa_lightning.backbones.processor import Processor


class SetsAccess:
    """What a data module has of its ``sets``.

    Attributes:
        sets: The rows of the tasks.
    """

    sets: TaskSets

    @property
    def name(self) -> str:
        """Name of the task, or ``mixture``."""
        return self.sets.name

    @property
    def task(self) -> Task:
        """The task, or the first one of a mixture."""
        return self.sets.task

    @property
    def source(self) -> Source | None:
        """The source of the rows, or None before ``resolve``."""
        return self.sets.source

    @property
    def encoding(self) -> Encoding:
        """How examples become tokens."""
        return self.sets.encoding

    @property
    def processor(self) -> Processor | None:
        """The tokenizer of the base model, or for images its image processor."""
        return self.sets.processor

    @processor.setter
    def processor(self, processor: Processor | None) -> None:
        self.sets.processor = processor

    @property
    def tokenizer(self) -> Processor | None:
        """The processor, under its name for texts."""
        return self.processor

    @tokenizer.setter
    def tokenizer(self, tokenizer: Processor | None) -> None:
        self.processor = tokenizer

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance of the rows read so far, see ``TaskSets.provenance``."""
        return self.sets.provenance

    @property
    def has_report(self) -> bool:
        """Whether there are report rows."""
        return self.sets.has_report

    def resolve(self) -> Source:
        """Decide the sources without loading a row, see ``TaskSets.resolve``."""
        return self.sets.resolve()

    def rows(self, split: str) -> RowTable:
        """Return the checked rows of a split of the only (or first) task."""
        return self.sets.rows(split)

    def indices(self, part: Part) -> list[int]:
        """Return the rows of a part of the only (or first) task as indices into its split."""
        return self.sets.indices(part)

    def example(self, part: Part, row: int, task: str | None = None) -> Any:
        """Return the example of a row index, as in ``batch["row"]``; by default of the first task."""
        return self.sets.example(part, row, task)

    def summary(self) -> dict[str, Any]:
        """Return the statistics of each encoded part, see ``TaskSets.summary``."""
        return self.sets.summary()
