"""How many directions the update really uses: its effective and stable rank, layer by layer, while it trains."""

from __future__ import annotations

import statistics
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from smoa_lightning.adapters import UpdateRank, layer_update, update_rank
from smoa_lightning.errors import UserError


def evenly(names: list[str], count: int) -> list[str]:
    """Return ``count`` of ``names`` at even distances, first and last among them.

    >>> evenly(list("abcdefg"), 3)
    ['a', 'd', 'g']
    """
    if count >= len(names):
        return names
    return [names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)]


def _is_matrix(layer: Any) -> bool:
    """Whether the update of a tuner layer is one of a weight matrix, so that it has a rank."""
    weight = getattr(layer.get_base_layer(), "weight", None)
    return hasattr(layer, "merge") and weight is not None and weight.dim() == 2


class RankMonitor(Callback):
    """Log ``rank/effective/<layer>``, ``rank/stable/<layer>`` and their means after every validation.

    Effective rank exp(H(sigma / sum sigma)) and stable rank ||D||_F^2 / ||D||_2^2 of the additive update D = W' - W.
    A strategy whose update cannot be written as a change of weights (prompts) has none, and nothing is logged.
    """

    def __init__(self, max_layers: int = 12) -> None:
        """Set the cost.

        Args:
            max_layers: How many adapted layers are measured, at even distances; 0 switches the monitor off.
        """
        self.max_layers = max_layers
        self.ranks: dict[str, UpdateRank] = {}
        self._initial: dict[str, Tensor] = {}
        self._measured_step = -1

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Under full fine-tuning keep the initial weights of the measured layers, before a checkpoint is loaded."""
        if stage != "fit" or pl_module.adapter_config is not None or pl_module.frozen or self._initial:
            return
        pl_module.configure_model()
        linear = {name: m for name, m in pl_module.network.named_modules() if isinstance(m, nn.Linear)}
        inner = [name for name in linear if ".layers." in f".{name}" or ".h." in f".{name}"] or list(linear)
        for name in evenly(inner, self.max_layers):
            self._initial[name] = linear[name].weight.detach().clone()

    @torch.no_grad()
    def measure(self, pl_module: Any) -> dict[str, UpdateRank]:
        """Return the rank of the update of each measured layer."""
        network = pl_module.network
        if self._initial:
            weights = {name: network.get_submodule(name).weight for name in self._initial}
            return {n: update_rank(weights[n].float() - w.float()) for n, w in self._initial.items()}
        if not isinstance(network, PeftModel):
            return {}
        modules = network.get_base_model().named_modules()
        layers: dict[str, Any] = {n: m for n, m in modules if isinstance(m, BaseTunerLayer) and _is_matrix(m)}
        adapter = network.active_adapter
        try:
            return {n: update_rank(layer_update(layers[n], adapter)) for n in evenly(list(layers), self.max_layers)}
        except UserError as error:
            print(f"the rank of the update is not measured: {error}")
            self.max_layers = 0
            return {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure and log, except in the sanity check."""
        if trainer.sanity_checking or not self.max_layers or trainer.state.fn != "fit":
            return
        self._measure_and_log(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure the last state, unless a validation has just done so."""
        if self.max_layers and self._measured_step != trainer.global_step:
            self._measure_and_log(trainer, pl_module)

    def _measure_and_log(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.ranks, self._measured_step = self.measure(pl_module), trainer.global_step
        if trainer.logger is None or not self.ranks:
            return
        values = {f"rank/effective/{name}": rank.effective for name, rank in self.ranks.items()}
        values |= {f"rank/stable/{name}": rank.stable for name, rank in self.ranks.items()}
        trainer.logger.log_metrics(values | self.means(), step=trainer.global_step)

    def means(self) -> dict[str, float]:
        """Return the means over the measured layers, -1 where the strategy has no update of weights."""
        if not self.ranks:
            return {"rank/effective_mean": -1.0, "rank/stable_mean": -1.0}
        return {
            "rank/effective_mean": statistics.fmean(rank.effective for rank in self.ranks.values()),
            "rank/stable_mean": statistics.fmean(rank.stable for rank in self.ranks.values()),
        }
