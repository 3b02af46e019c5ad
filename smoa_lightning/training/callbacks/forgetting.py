"""Forgetting: the likelihood of general text before and after training."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from smoa_lightning.adapters import without_adapter
from smoa_lightning.backbones.limits import check_ids
from smoa_lightning.common.atomic_files import write_jsonl
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.paths import local_path, near_place
from smoa_lightning.data.batches.collate import pad_rows
from smoa_lightning.data.batches.order import longest_first
from smoa_lightning.data.encoding.encode import AddBos, Pair, encode_pairs, scoring_row
from smoa_lightning.data.encoding.items import TokenRow
from smoa_lightning.data.tasks.fields import RowError, Text
from smoa_lightning.embedded import held_out_text
from smoa_lightning.evaluation.scoring import row_log_likelihoods, target_logits
from smoa_lightning.evaluation.text import likelihood_metrics
from smoa_lightning.evaluation.valid_scores import check_scores
from smoa_lightning.records.record import BASE_GENERAL_ITEMS, GENERAL_ITEMS
from smoa_lightning.training.processes import stop_if_terminated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMBEDDED = "embedded"
TASK = "general text"  # in the place of a task, so that no document is taken for a row of a task
logger = logging.getLogger(__name__)


class Forgetting(Callback):
    """Log ``general_perplexity`` and ``general_nll`` with the metrics of the report rows.

    The perplexity is exp(-sum of log p(token) / number of tokens) over documents, each read from its start. The nll is
    the mean over documents of -log p per token, in nats, so that runs can be compared document by document.
    ``base/general_perplexity`` is the value of the base model, ``report/general_perplexity`` of the trained model. Only
    values with the same tokenizer can be compared. ``general_items.jsonl`` in the folder of the run has the summed nll
    and the tokens of each document (``base_general_items.jsonl``: of the base model).
    """

    def __init__(
        self,
        text: str | None = EMBEDDED,
        max_documents: int = 200,
        max_length: int = 256,
        batch_tokens: int = 4096,
    ) -> None:
        """Set the text; it is read before training, so that errors come early.

        Args:
            text: ``embedded`` is text like the training text of the embedded backbone, but held out from it. A ``.txt``
                file has a document in each paragraph, separated by blank lines. A ``.jsonl`` file has documents in the
                field ``text``. ``null`` switches the callback off.
            max_documents: Largest number of documents, from the start.
            max_length: Largest number of tokens of a document, including BOS, from the start; at most the context of
                the model.
            batch_tokens: Largest number of tokens in a batch, including padding; a single document may exceed it.
        """
        for name, value, least in (
            ("max_documents", max_documents, 1),
            ("max_length", max_length, 2),
            ("batch_tokens", batch_tokens, 1),
        ):
            if value < least:
                raise UserError(f"forgetting.{name} is {value}, but must be at least {least}.")
        self.text, self.max_documents, self.max_length, self.batch_tokens = (
            text,
            max_documents,
            max_length,
            batch_tokens,
        )
        self._rows: list[TokenRow] = []

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Read and encode the documents, once; a model with a new head has no perplexity, and the callback is off.

        Raises:
            UserError: The file is missing, has a different ending, has no documents, or has a token that the embedding
                of the model lacks; or a file is named for a model with a new head.
        """
        if self.text is not None and not self._rows and stage not in ("validate", "predict"):  # which score no text
            texts = documents(self.text, self.max_documents)
            if pl_module.objective.head.is_new:
                self._leave_out(pl_module.objective.name)
                return
            self._rows = self.encoded(texts, pl_module, trainer.datamodule.encoding.add_bos)  # type: ignore[attr-defined]

    def _leave_out(self, objective: str) -> None:
        if self.text != EMBEDDED:
            raise UserError(
                f"forgetting.text is {self.text!r}, but a model for {objective} has no perplexity: set it to null"
            )
        self.text = None

    def encoded(self, texts: list[str], module: Any, add_bos: AddBos) -> list[TokenRow]:
        """Return documents as rows that the model can be fed."""
        tokenizer, limits = module.tokenizer, module.limits
        rows = text_rows(tokenizer, texts, min(self.max_length, limits.context or self.max_length), add_bos)
        for number, row in enumerate(rows, start=1):
            check_ids(row.ids, limits.vocabulary, tokenizer, f"forgetting.text, document {number}")
        return rows

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the metrics, and write the scores of the documents."""
        if self.text is None:
            return
        rows = self._rows
        network, is_base = pl_module.network, pl_module.scoring_base_model
        logger.info(
            "scoring %d general texts for general_perplexity (--forgetting.max_documents N scores fewer,"
            " --forgetting.text null none)",
            len(rows),
        )
        with without_adapter(network) if is_base else contextlib.nullcontext(network) as scored:
            found = document_scores(scored, rows, self.batch_tokens, lambda: stop_if_terminated(trainer))
        if trainer.is_global_zero:
            for name in (BASE_GENERAL_ITEMS,) * is_base + (GENERAL_ITEMS,) * (pl_module.frozen or not is_base):
                write_jsonl(Path(trainer.default_root_dir) / name, found)
        prefix = "base" if is_base else "report"
        for name, value in general_metrics(found).items():
            # every process reads the whole text, so equal numbers are averaged
            pl_module.log(f"{prefix}/{name}", value, sync_dist=True)


def text_rows(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int, add_bos: AddBos = "auto"
) -> list[TokenRow]:
    """Return documents as rows; all tokens are targets except the first, which is BOS or else EOS."""
    rows = []
    for pair in encode_pairs(tokenizer, [("", text) for text in texts], add_bos):
        if pair.response:
            response = pair.response[: max_length - len(pair.prefix)]
            rows.append(scoring_row(Pair(pair.prefix, (), response), max_length))
    return rows


@torch.no_grad()
def document_scores(
    network: Any, rows: list[TokenRow], batch_tokens: int, after_batch: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Return the score of each document as a line of ``general_items.jsonl``.

    Args:
        network: A causal language model in evaluation mode, with or without its adapter.
        rows: The documents.
        batch_tokens: Largest number of tokens in a batch, including padding.
        after_batch: Called after each batch; it may end the work with an exception.

    Returns:
        Lines with ``task``, ``row``, ``text_nll`` (summed over tokens, in nats) and ``tokens``.

    Raises:
        UserError: The likelihood of a document is not finite.
    """
    device = next(network.parameters()).device
    nll, tokens = [0.0] * len(rows), [0] * len(rows)
    for batch in longest_first([len(row) for row in rows], [1] * len(rows), len(rows), batch_tokens):
        padded = pad_rows(
            [rows[i] for i in batch], pad_id=0
        )  # any token can pad: attention and targets follow the lengths
        inputs = {name: tensor.to(device) for name, tensor in padded.items()}
        likelihood, count = row_log_likelihoods(*target_logits(network, inputs))
        for i, value, number in zip(batch, likelihood.tolist(), count.tolist(), strict=True):
            check_scores([value], f"forgetting.text, document {i + 1}")
            nll[i], tokens[i] = -value, number
        after_batch()
    lines = zip(nll, tokens, strict=True)
    return [{"task": TASK, "row": row, "text_nll": a, "tokens": t} for row, (a, t) in enumerate(lines)]


def general_metrics(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return perplexity per token and mean nll over documents, with their standard errors over documents.

    Args:
        found: The scores of documents, from ``document_scores``.
    """
    metrics = likelihood_metrics([line["text_nll"] for line in found], [line["tokens"] for line in found])
    return {f"general_{name}": value for name, value in metrics.items()}


def documents(text: str, limit: int) -> list[str]:
    """Return the first documents of a text file or of the embedded text.

    Raises:
        UserError: The file is missing, damaged, has a different ending, or has no documents.
    """
    if text == EMBEDDED:
        return held_out_text()[:limit]
    file = local_path(text)
    readers = {".txt": _paragraphs, ".jsonl": _texts}
    if not file.is_file():
        raise UserError(
            f"forgetting.text: the file {text} does not exist"
            f"{near_place(text) or f'; name a .txt or .jsonl file, {EMBEDDED!r}, or null'}."
        )
    if file.suffix not in readers:
        raise UserError(f"forgetting.text: {text} must end in .txt (paragraphs) or .jsonl (field 'text').")
    try:
        found = list(itertools.islice(readers[file.suffix](file), limit))
    except UnicodeDecodeError as error:
        raise UserError(f"forgetting.text: {text} is not valid UTF-8 ({error.reason}).") from None
    if not found:
        raise UserError(f"forgetting.text: {text} has no text.")
    return found


def _paragraphs(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8-sig") as lines:
        for blank, group in itertools.groupby(lines, key=lambda line: not line.strip()):
            if not blank:
                yield "".join(group).strip()


def _texts(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", None) or one_line(error, 100)
                raise UserError(f"forgetting.text: {file}, line {number}: not valid JSON ({reason}).") from None
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise UserError(f"forgetting.text: {file}, line {number}: there is no field 'text' with a text.")
            try:
                Text(allow_empty=True).check(row["text"])
            except RowError as error:
                raise UserError(f"forgetting.text: {file}, line {number}: field 'text' {error}.") from None
            if row["text"].strip():
                yield row["text"]
