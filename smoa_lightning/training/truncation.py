r"""Scores of a run whose update is cut to a rank: how much of its rank a trained update uses.

D = W' - W of each layer is replaced by D_R, the matrix of rank R with the smallest Frobenius distance to D (Eckart and
Young, 1936). The report rows of the run are scored with W + D_R, for R = 0, 1, 2, 4, ... up to the largest rank of the
method. Weights and scores are in float32. Other trained parameters (biases, norms, a new head) stay as they are.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.combine import is_pair
from smoa_lightning.adapters.inspect import largest_rank
from smoa_lightning.adapters.virtual_tokens import limits_with
from smoa_lightning.backbones.backbone import limits
from smoa_lightning.backbones.processor import load_processor
from smoa_lightning.common.console import no_bar
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.adapter_places import BEST
from smoa_lightning.records.metric_table import COMMON
from smoa_lightning.training.adapter_folder import trains_head_only
from smoa_lightning.training.export.lora import ROUNDING, Update, difference, find_updates
from smoa_lightning.training.export.merge import merged_model
from smoa_lightning.training.export.probe import Probe, report_rows
from smoa_lightning.training.export.source import TRUNCATED, Source, open_source

logger = logging.getLogger(__name__)
EXACT, ROUNDED = 1e-3, 0.03  # largest difference to the nll of the record: runs in float32, runs in other formats


@dataclass(frozen=True)
class TruncatedScore:
    """The scores at one rank.

    Attributes:
        rank: R; 0 is the model without the update of the layers that are cut.
        error: ||D_R - D||_F / ||D||_F over all layers.
        metrics: Metric -> value on the report rows, with the standard errors.
    """

    rank: int
    error: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class RunTruncation:
    """The scores of one run at each rank.

    Attributes:
        label: Name of the run.
        method: Name of its strategy.
        primary: The primary metric of its task.
        layers: Number of layers that are cut.
        bound: The largest rank of an update that the method allows, at most the smaller side of a layer.
        recorded: Metric -> value of the run itself, from its record.
        base: Metric -> value of the base model, from the record; empty if it was not scored.
        scores: From rank 0 to ``bound``.
        not_cut: Names of other trained parameters, which are the same at each rank.
    """

    label: str
    method: str
    primary: str
    layers: int
    bound: int
    recorded: dict[str, float]
    base: dict[str, float]
    scores: list[TruncatedScore]
    not_cut: list[str]


def open_rows(run: Path, backbone_folder: str | None = None) -> tuple[Source, Probe]:
    """Read the report rows of a run, before a weight is loaded.

    Raises:
        UserError: The method changes no weight, or the rows cannot be read.
    """
    if is_pair(run / BEST if (run / BEST).is_dir() else run):
        raise UserError(
            f"rank: {run} holds a prompt together with an adapter of weights, and --truncate cannot cut one of them: "
            "leave --truncate out"
        )
    source = open_source(run, backbone_folder)
    if trains_head_only(source.facts) or (source.adapter is not None and source.adapter.is_prompt_learning):
        raise UserError(f"rank: {source.method} changes no weight, so {run} has no update that --truncate can cut")
    processor = load_processor(source.location)
    try:
        data = report_rows(source, processor, limits_with(source.adapter, limits(source.location)))
    except UserError as error:
        raise UserError(f"rank: --truncate scores the report rows of a run, but for {run} {error}") from error
    rows = sum(len(items.items("report")) for items in data.sets.scored("report").values())
    return source, Probe([], str(run), processor, data, rows, source.location.head)


@torch.no_grad()
def truncate(label: str, source: Source, probe: Probe) -> RunTruncation:
    """Score the report rows with the update cut to each rank, from the largest down: then no D is kept.

    The best approximation of D is also that of D cut to a larger rank.

    Args:
        label: Name of the run.
        source: Its adapter and its backbone.
        probe: Its report rows.

    Raises:
        UserError: The update changes no linear layer, peft cannot merge it, or the merged model is not the run.
    """
    assert probe.data is not None
    whole = source.plain_model()
    most = None if source.adapter is None else largest_rank(whole)  # type: ignore[arg-type]
    del whole
    merged, backbone = merged_model(source, TRUNCATED).to("cpu"), source.plain_backbone().to("cpu")  # type: ignore[arg-type]
    updates = find_updates(backbone, merged)
    if not updates.layers:
        raise UserError(f"rank: the update of {source.method} changes no linear layer, so --truncate has none to cut")
    bound = updates.largest_rank
    if most is not None and most < bound and updates.error(most) <= ROUNDING:  # else some layers are trained in full
        bound = most
    recorded, base = _recorded(source, "report/"), _recorded(source, "base/")
    scores: list[TruncatedScore] = []
    for rank in tqdm(ranks_up_to(bound)[::-1], desc="truncate", unit="rank", leave=False, disable=no_bar()):
        merged.to("cpu")  # scoring may have moved it
        for name, update in updates.layers.items():
            before, after = backbone.get_submodule(name), merged.get_submodule(name)
            _set_weight(after, before, truncated(update, difference(before, after), rank))
        scores.insert(0, TruncatedScore(rank, updates.error(rank), probe.metrics(merged)))
        if rank == bound:
            _check_whole(source, scores[0], recorded)
    primary = probe.data.sets.primary("report")
    return RunTruncation(
        label, source.method, primary, len(updates.layers), bound, recorded, base, scores, updates.left_out
    )


def _recorded(source: Source, part: str) -> dict[str, float]:
    """Return the metrics of the record whose names begin with a part, without it."""
    metrics = source.run_metrics
    return {name.removeprefix(part): value for name, value in metrics.items() if name.startswith(part)}


def _check_whole(source: Source, last: TruncatedScore, recorded: dict[str, float]) -> None:
    """Refuse scores whose last rank is not the run: the largest rank of the method keeps the whole update."""
    if COMMON not in recorded or COMMON not in last.metrics:
        return
    exact = source.backbone.dtype == "float32" and source.backbone.quantization is None
    found, own = last.metrics[COMMON], recorded[COMMON]
    if not abs(found - own) <= (EXACT if exact else ROUNDED) * max(1.0, abs(own)):
        raise UserError(
            f"rank: --truncate cannot cut the update of {source.method}: with all of it merged into the weights, "
            f"{COMMON} is {found:.4f} at rank {last.rank}, but {own:.4f} in the record of the run"
        )


def ranks_up_to(bound: int) -> list[int]:
    """Return 0, the powers of two below ``bound``, and ``bound``.

    >>> ranks_up_to(12)
    [0, 1, 2, 4, 8, 12]
    """
    powers = [1 << exponent for exponent in range(bound.bit_length())]
    return [0, *(power for power in powers if power < bound), bound]


def truncated(update: Update, delta: Tensor, rank: int) -> Tensor:
    """Return D_R, (d_out, d_in) float64, for D with its decomposition ``update``.

    Args:
        update: The decomposition of D.
        delta: D, or D cut to a larger rank.
        rank: R.
    """
    a, b = update.factors(delta, min(rank, update.smaller_side))
    return b @ a


def _set_weight(layer: Any, base: Any, delta: Tensor) -> None:
    """Set the weight of a layer to W + D, rounded once."""
    stored = delta.t() if isinstance(base, Conv1D) else delta
    layer.weight.data.copy_(base.weight.detach().double() + stored)
