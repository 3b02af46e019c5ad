"""The rank of a trained run's update in each layer, with the largest rank that its method allows."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from tqdm import tqdm

from smoa_lightning.adapters import UpdateRank, adapted_layers, layer_update
from smoa_lightning.adapters.combine import WEIGHTS, is_pair, weights_of
from smoa_lightning.adapters.inspect import sizes, target_layers
from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.adapters.rank import base_shift, is_matrix_layer, shift_rounding, singular_values, update_rank
from smoa_lightning.adapters.tuner import frozen_weight
from smoa_lightning.backbones.backbone import load_model
from smoa_lightning.common.console import no_bar
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import read_record
from smoa_lightning.training.adapter_folder import (
    adapter_folder,
    load_adapter,
    read_adapter_facts,
    reading,
    saved_backbone,
    trains_head_only,
)
from smoa_lightning.training.callbacks.rank_monitor import evenly, inner_linear_layers


@dataclass(frozen=True)
class LayerRank:
    """The update D = W' - W of one layer.

    Attributes:
        name: Full name of the layer in the backbone.
        shape: (d_out, d_in).
        trainable: Number of trained parameters of the layer.
        bound: Largest possible rank of its update.
        rank: Measured rank.
        values: Singular values of the update, descending.
    """

    name: str
    shape: tuple[int, int]
    trainable: int
    bound: int
    rank: UpdateRank
    values: list[float]

    @property
    def kind(self) -> str:
        """The name with every index as ``*``."""
        return ".".join("*" if part.isdigit() else part for part in self.name.split("."))

    @property
    def lora_rank(self) -> float:
        """The rank of a LoRA with the same number of parameters: trainable / (d_out + d_in)."""
        return self.trainable / sum(self.shape)

    @property
    def curve(self) -> list[float]:
        """Singular values divided by the largest, without values that are only rounding."""
        return [value / self.values[0] for value in self.values[: self.rank.numerical]]


@dataclass(frozen=True)
class RunRank:
    """The measured ranks of one run.

    Attributes:
        label: Name of the run.
        trainable: Number of its trained parameters.
        adapted: Number of layers that it changes.
        layers: The measured layers.
    """

    label: str
    trainable: int
    adapted: int
    layers: list[LayerRank]

    def means(self) -> dict[str, float]:
        """Return the means of the ranks and the bound over the measured layers."""
        columns: dict[str, list[float]] = {
            "effective": [layer.rank.effective for layer in self.layers],
            "stable": [layer.rank.stable for layer in self.layers],
            "numerical": [layer.rank.numerical for layer in self.layers],
            "bound": [layer.bound for layer in self.layers],
            "smaller side": [min(layer.shape) for layer in self.layers],
        }
        return {name: statistics.fmean(column) for name, column in columns.items()}


def measure(run: Path, count: int, wanted: list[str] | None = None, backbone_folder: str | None = None) -> RunRank:
    """Measure the update of a run's best adapter: the difference to the weights of the backbone.

    The backbone's weights are copied before the adapter is attached. The update thus includes changes by the adapter's
    initialisation (PiSSA, OLoRA).

    Args:
        run: A run folder or an adapter folder.
        count: Number of measured layers, at even distances.
        wanted: Names of layers to measure instead, as far as the run changes them.
        backbone_folder: Folder of the backbone, if it has moved since training.

    Raises:
        UserError: The folder has no adapter, or the update has no rank (prompts, the adapter slot).
    """
    folder = adapter_folder(run)
    is_whole = not (folder / "adapter_config.json").is_file()
    if is_whole and trains_head_only(read_adapter_facts(folder)):
        raise UserError(f"{run}: only the new head was trained, so the backbone has no update and no rank")
    config, location = saved_backbone(folder, backbone_folder)
    backbone = load_model(config, location)
    if is_whole:
        return _measure_full(run, load_adapter(folder, backbone_folder)[0], backbone, count, wanted)
    with reading(folder):
        adapter = PeftConfig.from_pretrained(str(folder / WEIGHTS if is_pair(folder) else folder))
    names = [name for name, module in target_layers(backbone, adapter).items() if is_matrix_layer(module)]
    if not names:
        raise UserError(f"{run}: {method_name(adapter)} changes no weight matrix, so its update has no rank")
    chosen = _choose(names, count, wanted)
    originals = {name: backbone.get_parameter(f"{name}.weight").detach().clone() for name in chosen}
    model, _ = load_adapter(folder, backbone)
    assert isinstance(model, PeftModel)
    model = weights_of(model)
    model.set_adapter(model.active_adapter)  # makes the trained parameters countable
    entries = {layer.name: layer for layer in adapted_layers(model)}
    layers = []
    for name in tqdm(chosen, desc="ranks", unit="layer", leave=False, delay=2, disable=no_bar()):
        layer: Any = model.get_base_model().get_submodule(name)
        moved = base_shift(layer, originals[name]) is not None
        delta = layer_update(layer, model.active_adapter, originals[name])
        rounding = shift_rounding(originals[name]) if moved else 0.0
        entry = entries[name]
        layers.append(_layer(name, delta, entry.trainable_parameters, entry.rank_bound, rounding))
    return RunRank(_label(run), sizes(model)["trainable"], len(names), layers)


def _measure_full(run: Path, trained: nn.Module, backbone: nn.Module, count: int, wanted: list[str] | None) -> RunRank:
    names = inner_linear_layers(backbone)
    layers = []
    for name in tqdm(_choose(names, count, wanted), desc="ranks", unit="layer", leave=False, delay=2, disable=no_bar()):
        after, before = (_weight(model, name) for model in (trained, backbone))
        layers.append(_layer(name, after - before, after.numel(), min(after.shape), 0.0))
    return RunRank(_label(run), sizes(trained)["trainable"], len(names), layers)


def _weight(model: nn.Module, name: str) -> Tensor:
    """The weight of a linear layer, float32 and of shape (d_out, d_in)."""
    return frozen_weight(model.get_submodule(name)).detach().float()


def _layer(name: str, delta: Tensor, trainable: int, bound: int, rounding: float) -> LayerRank:
    values = singular_values(delta, bound)
    rank = update_rank(delta, rounding, values)
    return LayerRank(name, (delta.shape[0], delta.shape[1]), trainable, bound, rank, values.tolist())


def _choose(names: list[str], count: int, wanted: list[str] | None) -> list[str]:
    shared = [name for name in wanted or [] if name in set(names)]
    return shared or evenly(names, count)


def _label(run: Path) -> str:
    record = read_record(run) or read_record(run.parent.parent) or {}
    return str(record.get("name", run.name))
