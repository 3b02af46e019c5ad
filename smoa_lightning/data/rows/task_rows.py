"""The rows of one task: where they are read, which are for what, and their encoding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smoa_lightning import embedded
from smoa_lightning.backbones.hub import Source, resolve_source
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.encoding import shots
from smoa_lightning.data.encoding.encode_examples import Encoding, PartStatistics
from smoa_lightning.data.encoding.encoding_job import PartItems
from smoa_lightning.data.encoding.render import end_ids, uses_template
from smoa_lightning.data.rows.sources import (
    LocalPath,
    Origin,
    Provenance,
    check_path,
    has_split,
    known_splits,
    load_split,
    split_file,
)
from smoa_lightning.data.rows.splits import default_selection_rows, hold_out, subset
from smoa_lightning.data.task_stream import selection_of
from smoa_lightning.data.tasks import Generation, Protocol, Row, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["train", "selection", "report"]


@dataclass(frozen=True)
class Settings:
    """What decides which rows of a task are used and how; the fields are those of ``TaskDataModule``."""

    source: str = "auto"
    path: LocalPath | None = None
    repository: str | None = None
    revision: str | None = None
    bad_rows: Literal["error", "skip"] = "error"
    limit_train_rows: int | None = None
    limit_report_rows: int | None = None
    selection_rows: int | None = None
    report_split: str | None = None
    num_fewshot: int = 0
    chat_template: bool | None = None
    seed: int = 0
    cache: bool = True
    streaming: bool = False
    max_new_tokens: int | None = None
    encoding: Encoding = field(default_factory=Encoding)


class TaskRows:
    """Rows of one task under one protocol, read and encoded on first use.

    Args:
        task: The task.
        protocol: How its items are scored; examples are made by it.
        settings: Which rows, and how they are encoded.

    Raises:
        UserError: settings that do not fit the task.
    """

    def __init__(self, task: Task, protocol: Protocol, settings: Settings) -> None:
        self.task, self.protocol, self.settings = task, protocol, settings
        self.repository = settings.repository or task.hub_repository
        self.revision = settings.revision or (None if settings.repository else task.hub_revision)
        self.report_split = settings.report_split or task.report_split
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.context: int | None = None  # most positions that the model takes, where it has such a limit
        self.source: Source | None = None
        self._rows: dict[str, list[Row]] = {}
        self._provenance: dict[str, Provenance] = {}
        self._encoded: dict[Part, tuple[list[Any], PartStatistics]] = {}
        known = known_splits(task, settings.source)
        if settings.report_split is not None and self.report_split not in known:
            raise UserError(
                f"data.report_split: task {task.name!r} has no split {self.report_split!r};"
                f" did you mean {nearest(self.report_split, known)}?"
            )
        if self.report_split == task.train_split:
            raise UserError(f"data.report_split: {self.report_split!r} is trained on, so it can not be reported.")

    # ---- where the rows come from

    def resolve(self) -> Source:
        """Decide the source without loading a row; the answer stays.

        Raises:
            UserError: ``source: hub`` and no answer; ``source: local`` and no such path; a task that has no rows there.
        """
        if self.source is None:
            wanted = self.settings.source
            if self.repository is None and wanted in ("hub", "auto"):
                raise UserError(
                    f"data.source: task {self.task.name!r} reads your own rows and has none on the hub;"
                    " set data.source: local and data.path, or data.repository."
                )
            self.source = resolve_source(
                wanted, self.repository, "dataset", self.revision, embedded_available=self.task.name in embedded.TASKS
            )
            if self.source == "local":
                check_path(self.settings.path)
        return self.source

    @property
    def origin(self) -> Origin:
        """Where the rows are taken from, with the fields of the resolved source only."""
        source = self.resolve()
        if source == "hub":
            return Origin("hub", repository=self.repository, revision=self.revision)
        return Origin(source, path=self.settings.path)

    @property
    def provenance(self) -> dict[str, Any]:
        """What was read so far: task, version, protocol, source; for each split the fields of ``Provenance``."""
        return {
            "task": self.task.name,
            "task_version": self.task.version,
            "protocol": self.protocol.name,
            "source": self.source,
            "splits": {split: provenance.as_dict() for split, provenance in self._provenance.items()},
        }

    @property
    def has_report(self) -> bool:
        """Whether there are rows to report on; a single local file holds training rows only.

        Raises:
            UserError: a split that was asked for by name and is not there.
        """
        path = self.settings.path
        whole = isinstance(path, str) and Path(path).expanduser().is_file()
        if self.settings.report_split is not None and self.resolve() == "local" and not whole:
            split_file(path, self.report_split)
        return has_split(self.task, self.report_split, self.origin)

    def rows(self, split: str) -> list[Row]:
        """Return the checked rows of a split, read on first use; of streamed training rows those that select alone."""
        if split not in self._rows:
            if self.settings.streaming and split == self.task.train_split:
                loaded = selection_of(self)
            else:
                loaded = load_split(self.task, split, self.origin, self.settings.bad_rows)
            self._rows[split], self._provenance[split] = loaded
        return self._rows[split]

    # ---- which rows are for what

    def indices(self, part: Part) -> list[int]:
        """Return the rows of a part as indices into its split.

        Raises:
            UserError: more selection rows asked for than leave something to train on.
        """
        settings = self.settings
        if part == "report":
            # The same rows whatever the run's seed, so that seeds and methods are compared on the same items.
            return subset(range(len(self.rows(self.report_split))), settings.limit_report_rows, seed=0)
        if settings.streaming:
            return list(range(len(self.rows(self.task.train_split))))
        training, selection = self._sides
        return list(selection) if part == "selection" else subset(training, settings.limit_train_rows, settings.seed)

    @cached_property
    def _sides(self) -> tuple[list[int], list[int]]:
        """The training rows (training, selection), before a limit; see ``hold_out``."""
        settings, rows = self.settings, self.rows(self.task.train_split)
        wanted = default_selection_rows(len(rows)) if settings.selection_rows is None else settings.selection_rows
        if wanted == 0:
            return list(range(len(rows))), []
        groups = [self.task.group(row) for row in rows]
        training, selection = hold_out(groups, wanted, settings.seed)
        if not training or not selection:
            smallest = min(Counter(groups).values())
            raise UserError(
                f"data.selection_rows: {wanted} of {len(rows)} training rows can not be held out so that both sides"
                f" have rows and no group stands on both; the smallest group has {smallest} rows, all groups but the"
                f" smallest {len(rows) - smallest}."
            )
        return training, selection

    def split_of(self, part: Part) -> str:
        """Return the split that the rows of a part stand in."""
        return self.report_split if part == "report" else self.task.train_split

    def example(self, part: Part, row: int) -> Any:
        """Return the example behind a row index, as ``batch["row"]`` names it, without few-shot prompt."""
        return self.protocol.example(self.rows(self.split_of(part))[row])

    def shots(self) -> tuple[str, ...]:
        """Return the solved training rows that stand before each scored prompt.

        Raises:
            UserError: too few training rows; prompts that go through a chat template.
        """
        if self.settings.num_fewshot == 0:
            return ()
        if self.encoding.template:
            raise UserError(
                "data.num_fewshot: solved rows are put before plain prompts only; set data.chat_template: false."
            )
        chosen = shots.choose(self.indices("train"), self.settings.num_fewshot, self.settings.seed)
        if len(chosen) < self.settings.num_fewshot:
            raise UserError(
                f"data.num_fewshot is {self.settings.num_fewshot}, but task {self.task.name!r} has only {len(chosen)}"
                " training rows."
            )
        return shots.solved([self.example("train", index) for index in chosen])

    # ---- encoding

    def encoded(self, part: Part) -> list[Any]:
        """Return the encoded rows of a part: ``TokenRow`` for training, else ``ChoiceItem`` or ``ReplyItem``.

        They are made on first use, or found in the cache on disk, where the same rows were encoded likewise before.

        Raises:
            UserError: a row that does not fit; no row left.
        """
        if part not in self._encoded:
            if self.tokenizer is None:
                raise RuntimeError("set datamodule.tokenizer before setup()")
            made = self._items(part).encoded(self.tokenizer, self.settings.cache)
            if not made[0]:
                skipped = made[1].num_skipped
                raise UserError(f"{self.task.name}: all {skipped} {part} rows are longer than data.max_length.")
            self._encoded[part] = made
        return self._encoded[part][0]

    def _items(self, part: Part) -> PartItems:
        indices, name = self.indices(part), f"{self.task.name} {self.split_of(part)}"
        examples = [self.example(part, index) for index in indices]
        if part == "train":
            return PartItems(name, None, indices, examples, self.encoding)
        return PartItems(name, self.protocol.name, indices, examples, self.scored_encoding, self.shots())

    @property
    def encoding(self) -> Encoding:
        """How this task's examples become tokens, once the tokenizer is known.

        Raises:
            UserError: a chat template for prompts whose choices are scored.
        """
        assert self.tokenizer is not None
        default = isinstance(self.protocol, Generation) and self.protocol.chat_template
        template = uses_template(self.tokenizer, self.settings.chat_template, default)
        if template and not isinstance(self.protocol, Generation):
            raise UserError(
                f"data.chat_template: true, but task {self.task.name!r} is scored by the likelihood of its choices,"
                " whose prompts are plain text; set it to false or null."
            )
        return replace(self.settings.encoding, template=template)

    @property
    def scored_encoding(self) -> Encoding:
        """The same for rows that are scored: where replies are written, prompts leave them room in the model's context.

        Raises:
            UserError: no room for a prompt.
        """
        how, context = self.encoding, self.context
        if context is None or not isinstance(self.protocol, Generation):
            return how
        left = context - (self.settings.max_new_tokens or self.protocol.max_new_tokens)
        if left < 1:
            raise UserError(
                f"data.max_new_tokens: replies of {context - left} tokens leave no room for a prompt in the model's"
                f" context of {context} tokens; the largest valid value is {context - 1}."
            )
        return replace(how, prompt_length=left)

    def reply_ends(self) -> list[int]:
        """Return the tokens that end a written reply."""
        assert self.tokenizer is not None
        return end_ids(self.tokenizer, self.encoding.template)

    def summary(self) -> dict[str, Any]:
        """Return for each part made so far: rows, lengths, target tokens, and what was cut, skipped or merged.

        ``train_report_overlap`` counts report rows whose group (for PIQA the goal) stands among the training rows too.
        """
        facts: dict[str, Any] = {part: made[1].as_dict() for part, made in self._encoded.items()}
        facts["bad_rows"] = {split: provenance.num_bad_rows for split, provenance in self._provenance.items()}
        read = self.task.train_split in self._rows and self.report_split in self._rows
        if read and not self.settings.streaming:
            trained = {self.task.group(row) for row in self._rows[self.task.train_split]}
            facts["train_report_overlap"] = sum(
                self.task.group(row) in trained for row in self._rows[self.report_split]
            )
        return facts
