"""Rows, splits, encoding and batches of one task as a Lightning data module."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import LightningDataModule

from smoa_lightning import embedded
from smoa_lightning.data.collate import (
    BatchLoader,
    BucketOrder,
    ResumableLoader,
    collate_choices,
    longest_first,
    pad_rows,
)
from smoa_lightning.data.prepare import Encoding, PartStatistics, encode_choices, encode_training
from smoa_lightning.data.sources import LocalPath, Origin, Provenance, check_path, fetch, has_split, load_split
from smoa_lightning.data.splits import default_selection_rows, hold_out, subset
from smoa_lightning.data.tasks import ChoiceExample, Row, Task, get_task
from smoa_lightning.errors import UserError, nearest
from smoa_lightning.hub import SOURCES, Source, resolve_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["train", "selection", "report"]


class TaskDataModule(LightningDataModule):
    """Rows of one task from hub, local files or the package, as batches for training and scoring.

    The rows that select the checkpoint are held out from the training rows and never the rows that are reported.
    ``tokenizer`` is set from outside before ``setup``.

    Args:
        task: Name of the task, such as ``piqa``.
        source: ``hub``: the model hub. ``local``: the files at ``path``. ``embedded``: rows made by this package.
            ``auto``: the hub if it answers or its cache holds the rows, else embedded.
        path: With source local: a folder of split files (``train.jsonl``, ``validation.jsonl``, ...), one file of
            training rows, or a file for each split. JSONL, JSON, Parquet, CSV, TSV.
        repository: With source hub: another repository with the same fields; ``null`` means the task's own.
        revision: With source hub: branch, tag or commit; ``null`` means the one that the task pins.
        batch_size: Rows in a training batch.
        eval_batch_size: Most items (each with all its choices) in a scoring batch.
        eval_max_tokens: Most tokens in a scoring batch with its padding, or ``null``.
        max_length: Longest sequence in tokens; what is longer loses the left of its prompt.
        loss_on: ``response``: the loss counts the response and its EOS. ``all``: the prompt too.
        overlong: What to do with a row whose response alone does not fit: ``error``, or ``skip`` and count.
        bad_rows: What to do with a row that breaks the task's schema: ``error``, or ``skip`` and count.
        add_bos: Whether a sequence begins with BOS: ``auto`` does what the tokenizer does by itself.
        limit_train_rows: Train on so many rows only, a seeded choice; ``null`` means all.
        selection_rows: How many training rows are held out to select the checkpoint; ``null`` means min(500, 5 %), 0
            trains on all rows and takes the last step.
        report_split: Split whose rows are reported; ``null`` means the task's own.
        seed: Seed of the hold-out, the choice of rows and the order of batches; ``null`` follows ``seed_everything``
            (0 in Python).
        bucket_batches: How many batches are sorted by length together: more means less padding and less chance.
        pad_multiple: Pad batches to a multiple of so many tokens.
        num_workers: Processes that put batches together; 0 means none beside the main one.
        pin_memory: Put batches into page-locked memory for faster copies to a GPU.

    Raises:
        UserError: an unknown task, source or split, or an argument out of its range.
    """

    def __init__(
        self,
        task: str = "piqa",
        source: str = "auto",
        path: str | dict[str, str] | None = None,
        repository: str | None = None,
        revision: str | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 16,
        eval_max_tokens: int | None = None,
        max_length: int = 512,
        loss_on: Literal["response", "all"] = "response",
        overlong: Literal["error", "skip"] = "error",
        bad_rows: Literal["error", "skip"] = "error",
        add_bos: bool | Literal["auto"] = "auto",
        limit_train_rows: int | None = None,
        selection_rows: int | None = None,
        report_split: str | None = None,
        seed: int | None = None,
        bucket_batches: int = 32,
        pad_multiple: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.task: Task = get_task(task)
        self.path: LocalPath | None = path
        self.requested_source = source
        self.repository = repository or self.task.hub_repository
        self.revision = revision or (None if repository else self.task.hub_revision)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.eval_max_tokens = eval_max_tokens
        self.bad_rows: Literal["error", "skip"] = bad_rows
        self.encoding = Encoding(max_length, loss_on, overlong, add_bos)
        self.limit_train_rows = limit_train_rows
        self.selection_rows = selection_rows
        self.report_split = report_split or self.task.report_split
        self.seed = seed or 0
        self.bucket_batches = bucket_batches
        self.pad_multiple = pad_multiple
        self.num_workers = num_workers
        self.pin_memory = pin_memory

        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.source: Source | None = None
        self._rows: dict[str, list[Row]] = {}
        self._provenance: dict[str, Provenance] = {}
        self._encoded: dict[Part, tuple[list[Any], PartStatistics]] = {}
        self._train_loader: ResumableLoader | None = None
        self._train_state: dict[str, Any] | None = None
        # Under DDP a process may be left without an item to score.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._check_arguments()

    def _check_arguments(self) -> None:
        """Refuse what is out of range before anything is loaded."""
        if self.requested_source not in SOURCES:
            raise UserError(f"data.source: unknown source {self.requested_source!r}; it is one of {', '.join(SOURCES)}")
        if self.path is not None and self.requested_source != "local":
            raise UserError(
                f"data.path is set, but data.source is {self.requested_source!r}:"
                " set data.source: local, or drop the path."
            )
        if self.report_split not in self.task.splits:
            raise UserError(
                f"data.report_split: task {self.task.name!r} has no split {self.report_split!r};"
                f" did you mean {nearest(self.report_split, self.task.splits)}?"
            )
        if self.report_split == self.task.train_split:
            raise UserError(f"data.report_split: {self.report_split!r} is trained on, so it can not be reported.")
        least = dict.fromkeys(("batch_size", "eval_batch_size", "eval_max_tokens", "limit_train_rows"), 1)
        least |= {"bucket_batches": 1, "pad_multiple": 1, "selection_rows": 0, "num_workers": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UserError(f"data.{name} is {value}, but must be at least {bound}.")
        if self.encoding.max_length < 2:
            raise UserError(f"data.max_length is {self.encoding.max_length}, but must be at least 2.")

    # ---- where the rows come from

    def resolve(self) -> Source:
        """Decide the source without loading a row; the answer stays.

        Raises:
            UserError: ``source: hub`` and no answer; ``source: local`` and no such path.
        """
        if self.source is None:
            self.source = resolve_source(
                self.requested_source,
                self.repository,
                "dataset",
                self.revision,
                embedded_available=self.task.name in embedded.TASKS,
            )
            if self.source == "local":
                check_path(self.path)
        return self.source

    @property
    def origin(self) -> Origin:
        """Where the rows are taken from, with the fields of the resolved source only."""
        source = self.resolve()
        if source == "hub":
            return Origin("hub", repository=self.repository, revision=self.revision)
        return Origin(source, path=self.path)

    @property
    def provenance(self) -> dict[str, Any]:
        """What was read so far: task, version, source; for each split the fields of ``Provenance``."""
        return {
            "task": self.task.name,
            "task_version": self.task.version,
            "source": self.source,
            "splits": {split: provenance.as_dict() for split, provenance in self._provenance.items()},
        }

    @property
    def has_report(self) -> bool:
        """Whether there are rows to report on; a single local file holds training rows only."""
        return has_split(self.task, self.report_split, self.origin)

    def rows(self, split: str) -> list[Row]:
        """Return the checked rows of a split, read on first use."""
        if split not in self._rows:
            self._rows[split], self._provenance[split] = load_split(self.task, split, self.origin, self.bad_rows)
        return self._rows[split]

    # ---- which rows are for what

    def indices(self, part: Part) -> list[int]:
        """Return the rows of a part as indices into its split.

        Raises:
            UserError: more selection rows asked for than leave something to train on.
        """
        if part == "report":
            return list(range(len(self.rows(self.report_split))))
        rows = self.rows(self.task.train_split)
        wanted = default_selection_rows(len(rows)) if self.selection_rows is None else self.selection_rows
        if wanted == 0:
            return [] if part == "selection" else subset(range(len(rows)), self.limit_train_rows, self.seed)
        training, selection = hold_out([self.task.group(row) for row in rows], wanted, self.seed)
        if not training or not selection:
            raise UserError(
                f"data.selection_rows: {wanted} of {len(rows)} training rows can not be held out so that both sides"
                " have rows and no group stands on both; choose another number."
            )
        return selection if part == "selection" else subset(training, self.limit_train_rows, self.seed)

    def split_of(self, part: Part) -> str:
        """Return the split that the rows of a part stand in."""
        return self.report_split if part == "report" else self.task.train_split

    def example(self, part: Part, row: int) -> ChoiceExample:
        """Return the example behind a row index, as ``batch["row"]`` names it."""
        return self.task.example(self.rows(self.split_of(part))[row])

    # ---- encoding

    def encoded(self, part: Part) -> list[Any]:
        """Return the encoded rows of a part, made on first use: ``TokenRow`` for training, else ``ChoiceItem``.

        Raises:
            UserError: a row that does not fit; no row left.
        """
        if part not in self._encoded:
            if self.tokenizer is None:
                raise RuntimeError("set datamodule.tokenizer before setup()")
            indices = self.indices(part)
            examples = [self.example(part, index) for index in indices]

            def place(position: int) -> str:
                return f"{self.task.name} {self.split_of(part)}, row {indices[position] + 1}"

            if part == "train":
                made: Any = encode_training(examples, place, self.tokenizer, self.encoding)
            else:
                made = encode_choices(examples, indices, place, self.tokenizer, self.encoding)
            if not made[0]:
                raise UserError(f"{self.task.name}: all {len(indices)} {part} rows are longer than data.max_length.")
            self._encoded[part] = made
        return self._encoded[part][0]

    def summary(self) -> dict[str, Any]:
        """Return for each part made so far: rows, lengths, target tokens, and what was cut, skipped or merged.

        ``train_report_overlap`` counts report rows whose group (for PIQA the goal) stands among the training rows too.
        """
        facts: dict[str, Any] = {part: made[1].as_dict() for part, made in self._encoded.items()}
        facts["bad_rows"] = {split: provenance.num_bad_rows for split, provenance in self._provenance.items()}
        if self.task.train_split in self._rows and self.report_split in self._rows:
            trained = {self.task.group(row) for row in self._rows[self.task.train_split]}
            facts["train_report_overlap"] = sum(
                self.task.group(row) in trained for row in self._rows[self.report_split]
            )
        return facts

    # ---- Lightning's hooks

    def prepare_data(self) -> None:
        """Download what the hub's cache lacks, in one process only."""
        if self.resolve() == "hub":
            assert self.repository is not None
            fetch(self.repository, self.revision)

    def setup(self, stage: str | None = None) -> None:
        """Read, check and encode the rows that a stage needs: ``fit``, ``validate``, ``test`` or ``predict``."""
        if stage == "fit":
            self._train_loader, self._train_state = None, None  # a new fit starts at the first batch
        parts: dict[str | None, tuple[Part, ...]] = {"fit": ("train", "selection"), "validate": ("selection",)}
        for part in parts.get(stage, ("report",)):
            if part != "selection" or self.selection_rows != 0:
                self.encoded(part)

    def train_dataloader(self) -> ResumableLoader:
        """Return training batches in buckets of similar length, an order for each epoch, resumable at any batch.

        It is one stream a fit: another call gives the same loader.

        Raises:
            UserError: the run is resumed with settings that change the order of batches.
        """
        if self._train_loader is None:
            rows = self.encoded("train")
            lengths = tuple(len(row) for row in rows)
            order = BucketOrder(
                lengths, self.batch_size, self.seed, self.bucket_batches, *self._place_among_processes()
            )
            collate = functools.partial(pad_rows, pad_id=self._pad_id(), pad_multiple=self.pad_multiple)
            self._train_loader = ResumableLoader(rows, order, collate, self.num_workers, self.pin_memory)
        if self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)
            self._train_state = None
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training batches for a checkpoint.

        Lightning saves the loader's own state too, but does not restore it from a checkpoint of an epoch's end.
        """
        return self._train_loader.state_dict() if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state; it is checked where training asks for its batches, so that scoring does not mind it."""
        self._train_state = state_dict

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """Return choice batches of the selection rows; nothing to go through where none are held out."""
        return [] if self.selection_rows == 0 else self._choice_loader("selection")

    def test_dataloader(self) -> BatchLoader:
        """Return choice batches of the report rows."""
        return self._choice_loader("report")

    def predict_dataloader(self) -> BatchLoader:
        """Return choice batches of the report rows."""
        return self._choice_loader("report")

    def _choice_loader(self, part: Part) -> BatchLoader:
        items = self.encoded(part)
        rank, world_size = self._place_among_processes()
        batches = longest_first(
            [len(item) for item in items],
            [len(item.rows) for item in items],
            # Small enough for each process to get a batch: Lightning skips a process without one, and the others wait.
            min(self.eval_batch_size, -(-len(items) // world_size)),
            self.eval_max_tokens,
        )
        collate = functools.partial(collate_choices, pad_id=self._pad_id(), pad_multiple=self.pad_multiple)
        # Each process takes every n-th batch, the last ones maybe one less: every item is scored exactly once.
        return BatchLoader(items, batches[rank::world_size], collate, self.num_workers, self.pin_memory)

    def _place_among_processes(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def _pad_id(self) -> int:
        """Return a token to pad with; any will do, since padding is masked by length in attention and loss."""
        assert self.tokenizer is not None
        own = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(token for token in own if token is not None)
