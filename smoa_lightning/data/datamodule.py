"""Batches of one task or of several as a Lightning data module."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.loaders import (
    BatchLoader,
    ResumableLoader,
    TrainingSettings,
    plain_loader,
    scoring_loader,
    training_loader,
)
from smoa_lightning.data.checks import check_labelling, check_ranges, warn_of_replies
from smoa_lightning.data.encoding.encode_examples import Encoding
from smoa_lightning.data.encoding.encoded_task import EncodingSettings
from smoa_lightning.data.encoding.task_sets import TaskSets
from smoa_lightning.data.rows.sources import fetch
from smoa_lightning.data.rows.task_rows import Part, RowSettings
from smoa_lightning.data.sets_access import SetsAccess
from smoa_lightning.records.selection import HELD_OUT, Selection

STREAMING = {"streaming": False, "stream_buffer_rows": 10_000, "stream_epoch_batches": 1000}  # settings of old versions


class TaskDataModule(SetsAccess, LightningDataModule):  # type: ignore[misc]  # both have a name; Lightning's may be None
    """Rows of one task or of a mixture from hub, local files or the package, as batches for training and scoring.

    The rows that select the checkpoint are held out from the training rows. They are never report rows.
    Set ``processor`` before ``setup``.

    Args:
        task: Name of the task, such as ``piqa``, or ``mixture``.
        source: ``hub``: the model hub. ``local``: the files at ``path``. ``embedded``: rows of this package. ``auto``:
            the hub if it answers or its cache holds the rows, else embedded.
        path: With source local: a folder of split files (``train.jsonl``, ``train-00000-of-00003.parquet``, ``train/``,
            ...), one file or pattern of training rows, or a file, pattern or list of files for each split. JSONL,
            JSON, Parquet, CSV, TSV, Arrow and folders of ``save_to_disk`` are read, local or by URL; text files may be
            compressed. With several tasks: a folder that holds one such folder for each task, with the task's name.
        repository: With source hub: a different repository with the same fields; ``null`` means that of the task.
        revision: With source hub: branch, tag or commit; ``null`` means the commit that the task pins.
        mixture: With task mixture: the training tasks, ``[boolq, piqa]`` by their size, ``{boolq: 1, piqa: 2}`` by
            weight.
        report_tasks: The tasks of the report, such as ``[gsm8k]`` after training on ``metamath_qa``; ``null`` means the
            training tasks.
        protocol: ``likelihood``: the best choice by log-likelihood. ``generation``: the answer in a reply that the
            model generates. ``classification``, ``regression``: a label, by a new head of the model. ``null``: the
            default of the task.
        rules: ``llm_adapters``: prompts, beams, lengths and answers of generated replies as in the code of LLM-Adapters
            (docs/protocol.md), to compare with published scores. ``null``: those of this package.
        fields: Field of the task -> its name in your rows, if the names differ.
        first_label: With task ``choice``: 1 if labels are numbers from 1 on. ``null`` or 0 means positions from 0 on,
            letters or texts.
        class_names: With task ``image_classification``: the names of the classes in the order of their labels. ``null``
            takes the names of the folders of the training images, or those in a Parquet file, and records them, so
            that ``test`` needs no training images.
        augmentation: Random changes of training images, one after the other: a list of ``{class_path, init_args}`` of
            any callable on a PIL image, such as ``torchvision.transforms.v2.RandomHorizontalFlip`` (from the extra
            ``images``). Only training uses it; scoring never does. ``null`` changes no image.
        batch_size: Rows in a training batch of each process; with packing, sequences. N processes share batches of N
            times as many rows.
        eval_batch_size: Largest number of items (each with all its choices) in a scoring batch.
        eval_max_tokens: Largest number of tokens in a scoring batch with its padding, or ``null``.
        max_length: Longest sequence in tokens. A longer one loses its oldest turns, then the left of its prompt.
        loss_on: ``response``: the loss counts the response and its EOS. ``all``: also the prompt.
        overlong: A row with a response that does not fit is an ``error``, or ``skip``: left out and counted.
        bad_rows: A row that breaks the task's schema is an ``error``, or ``skip``: left out and counted.
        add_bos: Whether a sequence begins with BOS; ``auto`` follows the tokenizer.
        chat_template: Whether prompts go through the tokenizer's chat template; ``null`` follows the task.
        num_fewshot: Solved training rows before each scored prompt, the same for all; training prompts have none.
        max_new_tokens: Longest reply in tokens; ``null`` follows the task.
        num_beams: Width of the beam search, 1 is greedy; ``null`` follows ``rules``: 4 with ``llm_adapters``, else 1.
        bert_score: Folder or hub name of an encoder for BERTScore of generated replies; ``null`` leaves it out.
        limit_train_rows: Train on this number of rows only, a seeded choice; ``null`` means all.
        train_per_class: Train on this number of rows of each class only, a seeded choice; ``null`` means all.
        limit_report_rows: Report on this number of rows only, a seeded choice; ``null`` means all.
        selection: ``held_out``: training rows that are held out select the checkpoint. ``best_epoch_on_report``: the
            report rows themselves select it, "as published"; such scores are too good, and are labelled everywhere.
            ``trained_rows``: the training rows select it and are reported, to measure capacity; labelled everywhere.
        selection_rows: How many training rows of each task are held out to select the checkpoint. ``null`` means
            min(500, 5 %); 0 trains on all rows and takes the last step.
        report_split: Split of the report rows; ``null`` means that of the task.
        seed: Seed of the hold-out, the choice of rows and the order of batches; ``null`` follows ``seed_everything``
            (0 in Python).
        bucket_batches: How many batches are sorted by length together: a larger number means less padding, and less
            random batches.
        pad_multiple: Pad batches to a multiple of this number of tokens.
        packing: Train on sequences of several rows up to ``max_length``; no row sees another one.
        streaming: Ignored: files of any size are read from disk.
        stream_buffer_rows: Ignored, as ``streaming``.
        stream_epoch_batches: Ignored, as ``streaming``.
        cache: Save checked and encoded rows on disk (``$SMOA_LIGHTNING_CACHE``) for later runs. Without it they are in
            a temporary file that is deleted when the process ends.
        num_workers: Processes that make batches; 0 means the main process.
        pin_memory: Put batches into page-locked memory for faster copies to a GPU.

    Raises:
        UserError: an unknown task, source, split or protocol, or an argument out of its range.
    """

    def __init__(
        self,
        task: str = "piqa",
        source: str = "auto",
        path: str | dict[str, str | list[str]] | None = None,
        repository: str | None = None,
        revision: str | None = None,
        mixture: list[str] | dict[str, float] | None = None,
        report_tasks: list[str] | None = None,
        protocol: Literal["likelihood", "generation", "classification", "regression"] | None = None,
        rules: Literal["llm_adapters"] | None = None,
        fields: dict[str, str | list[str]] | None = None,
        first_label: int | None = None,
        class_names: list[str] | None = None,
        augmentation: list[dict[str, Any]] | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 16,
        eval_max_tokens: int | None = None,
        max_length: int = 512,
        loss_on: Literal["response", "all"] = "response",
        overlong: Literal["error", "skip"] = "error",
        bad_rows: Literal["error", "skip"] = "error",
        add_bos: bool | Literal["auto"] = "auto",
        chat_template: bool | None = None,
        num_fewshot: int = 0,
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        bert_score: str | None = None,
        limit_train_rows: int | None = None,
        train_per_class: int | None = None,
        limit_report_rows: int | None = None,
        selection: Selection = HELD_OUT,
        selection_rows: int | None = None,
        report_split: str | None = None,
        seed: int | None = None,
        bucket_batches: int = 32,
        pad_multiple: int = 1,
        packing: bool = False,
        streaming: bool = False,
        stream_buffer_rows: int = 10_000,
        stream_epoch_batches: int = 1000,
        cache: bool = True,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.requested_source, self.seed = source, seed or 0
        self.batch_size, self.bucket_batches, self.pad_multiple = batch_size, bucket_batches, pad_multiple
        self.eval_batch_size, self.eval_max_tokens = eval_batch_size, eval_max_tokens
        self.max_new_tokens, self.num_beams, self.bert_score = max_new_tokens, num_beams, bert_score
        self.limit_train_rows, self.limit_report_rows = limit_train_rows, limit_report_rows
        self.train_per_class = train_per_class
        self.num_fewshot, self.selection_rows, self.packing = num_fewshot, selection_rows, packing
        self.selection: Selection = selection
        self.num_workers, self.pin_memory, self.augmentation = num_workers, pin_memory, augmentation
        streams = zip(STREAMING, (streaming, stream_buffer_rows, stream_epoch_batches), strict=True)
        self.ignored_settings = [f"data.{name}" for name, value in streams if value != STREAMING[name]]
        others = {"rules": rules, "protocol": protocol, "chat_template": chat_template}
        check_ranges(source, {**vars(self), **others, "max_length": max_length, "first_label": first_label})
        rows = RowSettings(
            source=source,
            path=path,
            repository=repository,
            revision=revision,
            bad_rows=bad_rows,
            limit_train_rows=limit_train_rows,
            train_per_class=train_per_class,
            limit_report_rows=limit_report_rows,
            selection=selection,
            selection_rows=selection_rows,
            report_split=report_split,
            first_label=first_label or 0,
            seed=self.seed,
            cache=cache,
        )
        encoding = Encoding(max_length, loss_on, overlong, add_bos)
        encoded = EncodingSettings(num_fewshot, chat_template, max_new_tokens, encoding, augmentation)
        self.sets = TaskSets(task, rows, encoded, mixture, report_tasks, protocol, fields, rules, class_names)
        protocols = {name: rows.protocol for name, rows in self.sets.all.items()}
        check_labelling(protocols, list(self.sets.trained), {**vars(self), "loss_on": loss_on})
        warn_of_replies(protocols, vars(self))
        if path is not None and source != "local":
            raise UserError(
                f"data.path is set, but data.source is {source!r}: set data.source: local, or remove the path."
            )
        self._train_loader: ResumableLoader | None = None
        self._train_state: dict[str, Any] | None = None
        # Under DDP a process may have no item to score.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    # ---- Lightning's hooks

    def prepare_data(self) -> None:
        """Download what is not in the hub's cache, in one process only."""
        for rows in self.sets.all.values():
            if rows.resolve() == "hub":
                assert rows.repository is not None
                fetch(rows.repository, rows.commit or rows.revision)

    def setup(self, stage: str | None = None) -> None:
        """Read, check and encode the rows that a stage needs: ``fit``, ``validate``, ``test`` or ``predict``."""
        if stage == "fit":
            self._train_loader, self._train_state = None, None  # a new fit starts at the first batch
        parts: dict[str | None, tuple[Part, ...]] = {"fit": ("train", "selection"), "validate": ("selection",)}
        for part in parts.get(stage, ("report",)):
            if part != "selection" or self.selection_rows != 0:
                self.sets.encode(part)

    def train_dataloader(self) -> ResumableLoader:
        """Return training batches in buckets of similar length, with a new order in each epoch.

        A run can resume at any batch. All calls within a fit return the same loader.

        Raises:
            UserError: the run is resumed with settings that change the order of batches.
        """
        if self._train_loader is None:
            settings = TrainingSettings(
                batch_size=self.batch_size,
                max_length=self.encoding.max_length,
                seed=self.seed,
                bucket_batches=self.bucket_batches,
                pad_multiple=self.pad_multiple,
                packing=self.packing,
                num_workers=self.num_workers,
                pin_memory=self.pin_memory,
            )
            rows, place = self.sets.training_items(), self._place_among_processes()
            self._train_loader = training_loader(rows, settings, self._pad_id(), place)
        if self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)
            self._train_state = None
        return self._train_loader

    def plain_batches(self, rows: np.ndarray | None = None, place: tuple[int, int] = (0, 1)) -> BatchLoader:
        """Return batches of training rows without packing, the longest first, to compute something for each row.

        Args:
            rows: The numbers of the rows; None: all training rows.
            place: This process, and the number of processes that share the batches.
        """
        items = self.sets.training_items()
        rows = np.arange(len(items)) if rows is None else rows
        sizes, padding = (self.eval_batch_size, self.eval_max_tokens), (self._pad_id(), self.pad_multiple)
        return plain_loader(items, rows, sizes, padding, place)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training batches for a checkpoint.

        Lightning saves the state of the loader too, but does not restore it from a checkpoint at the end of an epoch.
        """
        return self._train_loader.state_dict() if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Save the state for ``train_dataloader``, which checks it. So scoring works with any state."""
        self._train_state = state_dict

    def val_dataloader(self) -> Any:
        """Return batches of the selection rows; an empty list if no rows are held out."""
        return [] if self.selection_rows == 0 else self._scoring_loaders("selection")

    def test_dataloader(self) -> Any:
        """Return batches of the report rows."""
        return self._scoring_loaders("report")

    def predict_dataloader(self) -> Any:
        """Return batches of the report rows."""
        return self._scoring_loaders("report")

    def _scoring_loaders(self, part: Part) -> BatchLoader | list[BatchLoader]:
        """Return a list of loaders, one for each task, or the single loader of a single task."""
        make = functools.partial(
            scoring_loader,
            eval_batch_size=self.eval_batch_size,
            max_tokens=self.eval_max_tokens,
            pad_id=self._pad_id(),
            pad_multiple=self.pad_multiple,
            place=self._place_among_processes(),
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
        )
        loaders = [make(rows.items(part)) for rows in self.sets.scored(part).values()]
        return loaders[0] if len(loaders) == 1 else loaders

    def _place_among_processes(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def _pad_id(self) -> int:
        """Return a token to pad with. Any token is right, since attention and loss mask the padding by length."""
        own = (*(getattr(self.processor, name, None) for name in ("pad_token_id", "eos_token_id")), 0)
        return next(token for token in own if token is not None)
