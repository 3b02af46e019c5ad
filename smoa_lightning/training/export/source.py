"""What is exported: the best adapter of a run, its backbone, and the record of the run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel

from smoa_lightning.adapters.combine import WEIGHTS, is_pair
from smoa_lightning.adapters.method_names import strategy_name
from smoa_lightning.adapters.tuner import SlotLayer
from smoa_lightning.backbones.backbone import BackboneConfig, Location, load_model, read_architecture
from smoa_lightning.backbones.quantization import quantization, quantized_layers
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import local_path
from smoa_lightning.records.adapter_places import BEST
from smoa_lightning.records.record import read_record
from smoa_lightning.training.adapter_folder import (
    adapter_folder,
    load_adapter,
    read_adapter_facts,
    reading,
    saved_backbone,
    trains_head_only,
)

TRUNCATED = "truncated"  # the form of weights that rank --truncate scores


@dataclass(frozen=True)
class Source:
    """A trained adapter, or a model after full fine-tuning.

    Attributes:
        folder: Its adapter folder.
        record: The record of its run; empty if the adapter folder is not in a run folder.
        facts: The facts in the adapter folder.
        backbone: Settings of the backbone, without gradient checkpointing.
        location: Where the backbone is read from.
        adapter: Configuration of the adapter; None after full fine-tuning.
        moved: The folder of the backbone, if it has moved since training.
    """

    folder: Path
    record: dict[str, Any]
    facts: dict[str, Any]
    backbone: BackboneConfig
    location: Location
    adapter: PeftConfig | None
    moved: str | None

    @property
    def method(self) -> str:
        """Name of the strategy; of a run with a head alone ``frozen``."""
        return strategy_name(self.adapter, frozen=trains_head_only(self.facts))

    @property
    def run_metrics(self) -> dict[str, float]:
        """The metrics of the record that are those of this adapter: the report rows were scored with the best one."""
        parts = ("report/", "base/") if self.facts.get("which", "best") == "best" else ("base/",)
        return {name: value for name, value in self.record.get("metrics", {}).items() if name.startswith(parts)}

    @property
    def own_dtype(self) -> torch.dtype:
        """Number format of the backbone's files; that of the run if they do not say it."""
        stored = read_architecture(self.location).dtype
        return stored if isinstance(stored, torch.dtype) else getattr(torch, self.backbone.dtype)

    def model_of_the_run(self) -> PreTrainedModel | PeftModel:
        """Load the model as the run scored it."""
        if self.adapter is None:
            return load_adapter(self.folder, self.moved)[0]
        return load_adapter(self.folder, load_model(self.backbone, self.location))[0]

    def plain_backbone(self) -> PreTrainedModel:
        """Load the backbone without an adapter; 8-bit and 4-bit weights are dequantised to the run's number format."""
        model = load_model(dataclasses.replace(self.backbone, split_fused=False), self.location)
        model.eval()
        if getattr(model, "is_quantized", False):
            return _dequantised(model, getattr(torch, self.backbone.dtype), self.location.name)
        return model

    def plain_model(self) -> PreTrainedModel | PeftModel:
        """Load the model with its adapter, on the backbone of :meth:`plain_backbone`."""
        if self.adapter is None:
            return self.model_of_the_run()
        return load_adapter(self.folder, self.plain_backbone())[0]


def open_source(run: str | Path, moved: str | None = None) -> Source:
    """Read what a run folder or an adapter folder holds, without loading a weight.

    Args:
        run: A run folder (its best adapter is used) or an adapter folder.
        moved: The folder of the backbone, if it has moved since training.

    Raises:
        UserError: The folder holds no adapter, a file is damaged, or there is no backbone in its folder.
    """
    path = local_path(run)
    place = path / BEST if (path / BEST).is_dir() else path
    if is_pair(place):
        raise UserError(
            f"{run} holds a prompt together with an adapter of weights, and no single folder of another format holds "
            f"both: peft reads the prompt from {place} and the weights from {place / WEIGHTS}"
        )
    folder = adapter_folder(run)
    backbone, location = saved_backbone(folder, moved)
    adapter = None
    if (folder / "adapter_config.json").is_file():
        with reading(folder):
            adapter = PeftConfig.from_pretrained(str(folder))
    record = read_record(path) or read_record(folder.parent.parent) or {}
    backbone = dataclasses.replace(backbone, gradient_checkpointing=False)
    return Source(folder, record, read_adapter_facts(folder), backbone, location, adapter, moved)


def check_updates_weights(source: Source, model: nn.Module | None, format: str) -> None:
    """Refuse a method without an update of weights, for a format that needs one.

    Args:
        source: What is exported.
        model: The model with the adapter; None before it is loaded.
        format: Name of the format.

    Raises:
        UserError: The method adds virtual tokens or a module after a layer.
    """
    reason = None
    if source.adapter is not None and source.adapter.is_prompt_learning:
        reason = "puts virtual tokens before each text"
    elif model is not None and any(isinstance(module, SlotLayer) for module in model.modules()):
        reason = "adds a nonlinear map after a block"
    if reason is not None:
        raise no_form(source, f"{reason} and changes no weight", format)


def no_form(source: Source, reason: str, format: str) -> UserError:
    """Return the refusal of a format that a method cannot have; ``truncated`` is that of ``rank --truncate``."""
    if format == TRUNCATED:
        return UserError(f"rank: {source.method} {reason}, so its update cannot be cut: leave --truncate out")
    return UserError(f"export: {source.method} {reason}, so it has no {format} form: use --format adapter")


def stored_format(model: nn.Module) -> str | None:
    """Return the format of a quantised backbone, ``int8`` or ``nf4``; None for floating point."""
    return next((quantization(layer) for layer in quantized_layers(model)), None)


def _dequantised(model: PreTrainedModel, dtype: torch.dtype, name: str) -> PreTrainedModel:
    try:
        plain: PreTrainedModel = model.dequantize(dtype=dtype)
    except (NotImplementedError, ValueError, TypeError) as error:
        raise UserError(
            f"export: the weights of {name!r} are quantised in a format that transformers cannot dequantise; use "
            "--format adapter"
        ) from error
    return plain
