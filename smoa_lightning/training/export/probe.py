"""What the run's model and the exported model are compared on: the report rows of the run, else a fixed text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import BaseImageProcessor

from smoa_lightning.adapters.virtual_tokens import limits_with
from smoa_lightning.backbones.backbone import limits
from smoa_lightning.backbones.heads import LANGUAGE_MODEL, Head
from smoa_lightning.backbones.limits import Limits
from smoa_lightning.backbones.processor import Processor, load_processor
from smoa_lightning.backbones.quantization import quantized_layers
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.evaluation.labels import INPUTS, head_outputs
from smoa_lightning.evaluation.scoring import logits_at
from smoa_lightning.evaluation.tasks import TaskEvaluation
from smoa_lightning.training.export.source import Source
from smoa_lightning.training.scoring_module import computed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
POSITIONS = 512  # whose logits are compared
LOGIT_ROWS = 32  # rows that are read if no metric is measured
# Largest difference of logits, as a share of the largest logit: float32, other formats. Measured on SmolLM2-135M: 2e-6
# in float32, 0.05 with weights rounded to bfloat16.
EXACT, ROUNDED = 1e-3, 0.25
TEXT = (
    "The weather was fine, and the two friends walked along the river. Question: how many bridges are there between "
    "the mill and the town? They counted 3 of stone and 4 of wood, so the answer is 7. def add(a, b): return a + b"
)


@dataclass
class Probe:
    """Batches for logits and for the metric.

    Attributes:
        batches: Batches of token ids for the logits, at most ``POSITIONS`` tokens together.
        place: Where they come from, for the report.
        data: The report rows; None if they are not available.
        rows: How many report rows the metric is measured on; 0 without a metric.
    """

    batches: list[dict[str, Tensor]]
    place: str
    processor: Processor
    data: TaskDataModule | None = None
    rows: int = 0
    head: Head = LANGUAGE_MODEL

    @torch.no_grad()
    def logits(self, model: Any) -> list[Tensor]:
        """Return the logits (positions, vocabulary) of each batch, float32; of a new head (rows, outputs)."""
        device = place_model(model)
        found = []
        for batch in self.batches:
            here = {name: tensor.to(device) for name, tensor in batch.items()}
            if self.head.is_new:
                found.append(head_outputs(model, here).cpu())
                continue
            places = batch["attention_mask"].nonzero(as_tuple=True)
            found.append(logits_at(model, here, (places[0].to(device), places[1].to(device))).float().cpu())
        return found

    @torch.no_grad()
    def metrics(self, model: Any) -> dict[str, float]:
        """Return the metrics of a model on the report rows; empty without a metric."""
        if self.data is None or not self.rows:
            return {}
        device = place_model(model)
        evaluation = _evaluation(self.data, self.processor).to(device)
        for position, loader in enumerate(_loaders(self.data)):
            for batch in loader:
                here = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in batch.items()}
                evaluation.score(model, here, position)
        return {name: float(value) for name, value in computed(evaluation, self.data.sets, "report").items()}


@dataclass(frozen=True)
class Fidelity:
    """How far the exported model is from the model of the run.

    Attributes:
        largest_difference: Largest absolute difference of two logits.
        largest_logit: Largest absolute logit of the model of the run.
        same_token: Share of the positions at which both models have the same most likely next token, or class.
        positions: Number of compared positions; with a new head of rows.
        place: Where the texts come from.
        rows: Number of report rows of the metric; 0 if it was not measured.
        primary: Name of the primary metric.
        before: Metrics of the model of the run.
        after: Metrics of the exported model.
    """

    largest_difference: float
    largest_logit: float
    same_token: float
    positions: int
    place: str
    rows: int = 0
    primary: str | None = None
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)


def make_probe(source: Source, fidelity_rows: int) -> Probe:
    """Read the report rows of the run, at most ``fidelity_rows``; without them take a fixed text, and say so.

    Args:
        source: What is exported.
        fidelity_rows: Number of report rows for the metric; 0 measures no metric.
    """
    processor = load_processor(source.location)
    bounds = limits_with(source.adapter, limits(source.location))
    try:
        data = report_rows(source, processor, bounds, fidelity_rows or LOGIT_ROWS)
    except UserError as error:
        what, batch = _fixed_input(processor, bounds)
        logger.info("the report rows are not available, so logits are compared on %s: %s", what, error)
        return Probe([batch], f"{what} ({error})", processor, head=source.location.head)
    place = f"the first report rows of {data.name} ({data.source})"
    rows = sum(len(items.items("report")) for items in data.sets.scored("report").values()) if fidelity_rows else 0
    return Probe(list(_first_batches(data)), place, processor, data, rows, source.location.head)


def _fixed_input(processor: Processor, bounds: Limits) -> tuple[str, dict[str, Tensor]]:
    """Return a fixed text, or a fixed image for a model that reads images, and its name."""
    if isinstance(processor, BaseImageProcessor):
        ramp = np.arange(3 * 64 * 64).reshape(64, 64, 3) % 251
        pixels = processor(ramp.astype(np.uint8), input_data_format="channels_last", return_tensors="pt")
        return "a fixed image", {"pixel_values": pixels["pixel_values"]}
    ids = torch.tensor([processor(TEXT)["input_ids"][: bounds.context]])
    return "a fixed text", {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def compare(probe: Probe, model: Any, logits: list[Tensor], before: dict[str, float]) -> Fidelity:
    """Compare an exported model with the logits and the metrics of the model of the run."""
    pairs = list(zip(logits, probe.logits(model), strict=True))
    positions = sum(len(own) for own, _ in pairs)
    return Fidelity(
        largest_difference=max(float((own - other).abs().max()) for own, other in pairs),
        largest_logit=max(float(own.abs().max()) for own, _ in pairs),
        same_token=sum(int((own.argmax(-1) == other.argmax(-1)).sum()) for own, other in pairs) / positions,
        positions=positions,
        place=probe.place,
        rows=probe.rows,
        primary=probe.data.sets.primary("report") if probe.data is not None and probe.rows else None,
        before=before,
        after=probe.metrics(model),
    )


def check_fidelity(fidelity: Fidelity, exact: bool) -> None:
    """Refuse an export whose logits are not those of the run.

    Args:
        fidelity: The compared logits.
        exact: Both models are in float32; otherwise one of them is in half precision or quantised.

    Raises:
        UserError: The logits differ by more than ``EXACT`` or ``ROUNDED`` of the largest logit.
    """
    share = EXACT if exact else ROUNDED
    if fidelity.largest_difference <= share * fidelity.largest_logit:
        return
    advice = "" if exact else "; --dtype float32 writes the update without rounding"
    raise UserError(
        "export: the exported model is not the model of the run: two logits differ by "
        f"{fidelity.largest_difference:.3g}, "
        f"more than {share:g} of the largest logit, {fidelity.largest_logit:.3g}, so nothing is written{advice}"
    )


def place_model(model: Any) -> torch.device:
    """Move a model to the GPU if there is one, and return its device; a quantised model stays where it is."""
    if torch.cuda.is_available() and next(quantized_layers(model), None) is None:
        model.to("cuda")
    device: torch.device = next(model.parameters()).device
    return device


def report_rows(source: Source, processor: Processor, bounds: Limits, count: int | None = None) -> TaskDataModule:
    """Return the encoded report rows of the run, at most ``count`` of them.

    Raises:
        UserError: There is no record, or the rows cannot be read.
    """
    config = source.record.get("config")
    if config is None:
        raise UserError("the adapter folder is not in a run folder, so its rows are not known")
    settings = dict(config["data"])
    settings["source"] = source.record.get("data", {}).get("source") or settings["source"]
    limits_of_rows = [limit for limit in (count, settings.get("limit_report_rows")) if limit is not None]
    settings["limit_report_rows"] = min(limits_of_rows, default=None)
    data = TaskDataModule(**settings | {"num_workers": 0})
    data.resolve()
    if not data.has_report:
        raise UserError("the run has no report rows")
    data.processor = processor
    data.sets.fit_context(bounds)
    data.prepare_data()
    data.setup("test")
    return data


def _loaders(data: TaskDataModule) -> list[Any]:
    loaders = data.test_dataloader()
    return loaders if isinstance(loaders, list) else [loaders]


def _first_batches(data: TaskDataModule) -> Iterator[dict[str, Tensor]]:
    """Yield the rows of the first batches, up to ``POSITIONS`` tokens; one row is cut if it is longer."""
    left = POSITIONS
    for loader in _loaders(data):
        for batch in loader:
            if "pixel_values" in batch:
                yield {"pixel_values": batch["pixel_values"][:LOGIT_ROWS]}
                return
            lengths = batch["attention_mask"].sum(1).cumsum(0)
            rows = max(1, int((lengths <= left).sum()))
            width = min(left, int(batch["attention_mask"][:rows].sum(1).max()))
            part = {name: batch[name][:rows, :width] for name in INPUTS if name in batch}
            yield part
            left -= int(part["attention_mask"].sum())
            if left <= 0 or rows < len(lengths):
                return


def _evaluation(data: TaskDataModule, processor: Processor) -> TaskEvaluation:
    sets = data.sets.scored("report")
    return TaskEvaluation(
        {name: rows.protocol for name, rows in sets.items()},
        cast("PreTrainedTokenizerBase", processor),
        ends={name: rows.reply_ends() for name, rows in sets.items()},
        max_new_tokens=data.max_new_tokens,
        num_beams=data.num_beams,
        bert_score=data.bert_score,
    )
