"""The rows of one task as tokens: how they are encoded, and the encoded items of each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from smoa_lightning.backbones.limits import Limits
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding import shots
from smoa_lightning.data.encoding.augmentation import Augmentation
from smoa_lightning.data.encoding.encode_examples import Encoding
from smoa_lightning.data.encoding.encoding_job import EncodingJob
from smoa_lightning.data.encoding.image_items import ImageItems
from smoa_lightning.data.encoding.item_table import ItemTable
from smoa_lightning.data.encoding.render import end_ids, uses_template
from smoa_lightning.data.rows.task_rows import Part, RowSettings, TaskRows
from smoa_lightning.data.tasks import Classification, Generation, Protocol, Task
from smoa_lightning.data.tasks.base import Labelling, reads_images

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from smoa_lightning.backbones.processor import Processor


@dataclass(frozen=True)
class EncodingSettings:
    """The settings that decide how rows are encoded. ``TaskDataModule`` explains the fields."""

    num_fewshot: int = 0
    chat_template: bool | None = None
    max_new_tokens: int | None = None
    encoding: Encoding = field(default_factory=Encoding)
    augmentation: Sequence[Mapping[str, Any]] | None = None


class EncodedTask(TaskRows):
    """Rows of one task under one protocol, read and encoded on first use.

    Set ``processor`` before rows are encoded.

    Args:
        task: The task.
        protocol: It makes the examples and decides how they are scored.
        settings: Which rows.
        encoding: How they are encoded.

    Raises:
        UserError: settings that do not fit the task.
    """

    def __init__(
        self, task: Task, protocol: Protocol, settings: RowSettings, encoding: EncodingSettings | None = None
    ) -> None:
        super().__init__(task, protocol, settings)
        self.encoding_settings = encoding or EncodingSettings()
        self.processor: Processor | None = None  # the tokenizer, or the image processor
        self.limits = Limits()  # what the model can be fed
        self._items: dict[Part, ItemTable | ImageItems] = {}

    def items(self, part: Part) -> ItemTable | ImageItems:
        """Return the encoded items of a part: ``TokenRow`` for training, else ``ChoiceItem`` or ``ReplyItem``.

        For a task with labels they are ``LabelledItem``, or ``ImageItem``, in every part.

        They are encoded on first use, or read from the cache on disk if the same rows were encoded in the same way.

        Raises:
            UserError: a row that does not fit; no row left; training rows of one class only.
        """
        if part not in self._items:
            if self.processor is None:
                raise RuntimeError("set datamodule.processor before setup()")
            items = self._images(part) if reads_images(self.protocol) else self._tokens(part)
            if not len(items):
                skipped = items.statistics["skipped_overlong"]
                raise UserError(f"{self.task.name}: all {skipped} {part} rows are longer than data.max_length.")
            if part == "train" and isinstance(self.protocol, Classification):
                self._check_classes(items.labels, self.protocol)
            self._items[part] = items
        return self._items[part]

    def _tokens(self, part: Part) -> ItemTable:
        return self._job(part).run(self.tokenizer, self.settings.cache)

    def _images(self, part: Part) -> ImageItems:
        processor: Any = self.processor
        assert isinstance(self.protocol, Classification)
        specs = self.encoding_settings.augmentation if part == "train" else None
        changes = Augmentation(specs, self.settings.seed) if specs else None  # its errors come before the rows
        return ImageItems(self.rows(self.split_of(part)), self.indices(part), self.protocol, processor, changes)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The processor of rows that are texts."""
        tokenizer: Any = self.processor
        return tokenizer  # type: ignore[no-any-return]

    def _check_classes(self, labels: np.ndarray, protocol: Classification) -> None:
        """Refuse training rows of one class: nothing can be learned from them."""
        found = np.unique(labels)
        if len(found) == 1:
            raise UserError(
                f"all {len(labels)} training rows of {self.task.name} have the label {protocol.names[int(found[0])]!r},"
                f" so no class can be learned; the classes are {', '.join(protocol.names)}."
            )

    def _job(self, part: Part) -> EncodingJob:
        trained, split = part == "train", self.split_of(part)
        how, solved = (self.encoding, ()) if trained else (self.scored_encoding, self.shots())
        return EncodingJob(self.task, split, self.rows(split), self.indices(part), self.protocol, trained, how, solved)

    @property
    def encoding(self) -> Encoding:
        """How this task's examples become tokens; needs the tokenizer.

        Raises:
            UserError: a chat template for prompts of scored choices.
        """
        settings = self.encoding_settings
        default = isinstance(self.protocol, Generation) and self.protocol.chat_template
        template = uses_template(self.tokenizer, settings.chat_template, default)
        if template and not isinstance(self.protocol, Generation):
            raise UserError(
                f"data.chat_template: true, but task {self.task.name!r} reads plain text (its protocol is"
                f" {self.protocol.name}); set it to false or null."
            )
        return replace(settings.encoding, template=template)

    @property
    def scored_encoding(self) -> Encoding:
        """The encoding of scored rows: prompts leave room for generated replies in the model's context.

        Raises:
            UserError: no room for a prompt.
        """
        how, context = self.encoding, self.limits.context
        if context is None or not isinstance(self.protocol, Generation):
            return how
        left = context - (self.encoding_settings.max_new_tokens or self.protocol.max_new_tokens)
        if left < 1:
            raise UserError(
                f"data.max_new_tokens: replies of {context - left} tokens leave no room for a prompt in the model's"
                f" context of {self.limits.describe()}; the largest valid value is {context - 1}."
            )
        return replace(how, prompt_length=left)

    def shots(self) -> tuple[str, ...]:
        """Return the solved training rows before each scored prompt.

        Raises:
            UserError: too few training rows; prompts that go through a chat template.
        """
        count = self.encoding_settings.num_fewshot
        if count == 0:
            return ()
        if isinstance(self.protocol, Labelling):
            raise UserError(f"data.num_fewshot: task {self.task.name!r} has no prompt, but a label; set it to 0.")
        if self.encoding.template:
            raise UserError("data.num_fewshot: solved rows need plain-text prompts; set data.chat_template: false.")
        chosen = shots.choose(self.indices("train"), count, self.settings.seed)
        if len(chosen) < count:
            raise UserError(
                f"data.num_fewshot is {count}, but task {self.task.name!r} has only {len(chosen)} training rows."
            )
        return shots.solved([self.example("train", index) for index in chosen])

    def reply_ends(self) -> list[int]:
        """Return the tokens that end a generated reply; none for a task with labels, which has no reply."""
        if isinstance(self.protocol, Labelling):
            return []
        return end_ids(self.tokenizer, self.encoding.template)

    def summary(self) -> dict[str, Any]:
        """Return the statistics of each encoded part, see ``PartStatistics.as_dict``, and the ``facts`` of the rows."""
        return {part: items.statistics for part, items in self._items.items()} | self.facts()
