"""The effective and stable rank of the update in each layer during training."""

from __future__ import annotations

import logging
import math
import statistics
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from peft import PeftModel
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters import UpdateRank, adapted_layers, layer_update, update_rank
from smoa_lightning.adapters.inspect import target_layers
from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.adapters.rank import base_shift, is_matrix_layer, shift_rounding, singular_values
from smoa_lightning.backbones.heads import in_new_head
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.sharding import gathered_weights

logger = logging.getLogger(__name__)
SAME = 1e-9  # relative difference of two norms of one matrix; a step of training changes far more


def evenly(names: list[str], count: int) -> list[str]:
    """Return ``count`` of ``names`` at even distances, including the first and the last.

    >>> evenly(list("abcdefg"), 3)
    ['a', 'd', 'g']
    """
    if count >= len(names):
        return names
    return [names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)]


def inner_linear_layers(network: nn.Module) -> list[str]:
    """Return the names of the linear layers in transformer layers; without transformer layers, all but a new head."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    linear = [name for name in linear if not in_new_head(network, name)]
    return [name for name in linear if ".layers." in f".{name}" or ".h." in f".{name}"] or linear


class RankMonitor(Callback):
    """Log ``rank/effective/<layer>``, ``rank/stable/<layer>``, their means and the mean bound after every validation.

    The effective rank is exp(H(sigma / sum sigma)), the stable rank ||D||_F^2 / ||D||_2^2, of the update D = W' - W.
    ``rank/bound_mean`` is the largest rank that the method allows. W is the weight of the backbone, which is copied
    before an initialisation changes it (PiSSA, OLoRA). A strategy that changes no weights (prompts, the adapter slot)
    has no rank; the monitor reports this once.
    """

    def __init__(self, max_layers: int = 12) -> None:
        """Set the number of measured layers.

        Args:
            max_layers: Number of measured layers, at even distances; 0 switches the monitor off.
        """
        self.max_layers = max_layers
        self.ranks: dict[str, UpdateRank] = {}
        self.bounds: dict[str, int] = {}
        self.history: dict[int, dict[str, float]] = {}  # step -> layer -> effective rank
        self._spectra: dict[str, Tensor] = {}  # layer -> singular values of its update, in the last measurement
        self._best_spectra: dict[str, Tensor] = {}  # the same of the best adapter
        self._initial: dict[str, Tensor] = {}
        self._measured_step = self._logged_step = -1

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Copy the weights of the measured layers, before an adapter or a checkpoint changes them.

        The copy of an adapted layer is dropped later if the adapter's initialisation does not change the weight.
        """
        if stage != "fit" or pl_module.frozen_backbone or self._initial or not self.max_layers:
            return
        with pl_module.as_base_model():
            pl_module.configure_model()
        network = pl_module.network
        if isinstance(network, PeftModel):
            return
        if pl_module.adapter_config is None:
            names = inner_linear_layers(network)
        else:
            targets = target_layers(network, pl_module.adapter_config)
            names = [name for name, module in targets.items() if is_matrix_layer(module)]
        for name in evenly(names, self.max_layers):
            self._initial[name] = network.get_submodule(name).weight.detach().to("cpu", copy=True)

    @torch.no_grad()
    def measure(self, pl_module: Any) -> dict[str, UpdateRank]:
        """Return the rank of the update of each measured layer."""
        network = pl_module.network
        if not isinstance(network, PeftModel):
            weights = {name: network.get_submodule(name).weight for name in self._initial}
            self.bounds = {name: min(weight.shape) for name, weight in weights.items()}
            return {
                n: self._measured(n, weights[n].float() - w.to(weights[n]).float()) for n, w in self._initial.items()
            }
        bounds = {layer.name: layer.rank_bound for layer in adapted_layers(network)}
        base = network.get_base_model()
        names = evenly([n for n in bounds if is_matrix_layer(base.get_submodule(n))], self.max_layers)
        self.bounds = {name: bounds[name] for name in names}
        try:
            if not names:
                kind = method_name(pl_module.adapter_config)
                raise UserError(f"{kind} changes no weight matrix, so its update has no rank")
            return {name: self._rank(base.get_submodule(name), network.active_adapter, name) for name in names}
        except UserError as error:
            logger.info("the rank of the update is not measured: %s", error)
            self.max_layers = 0
            return {}

    def _rank(self, layer: Any, adapter: str, name: str) -> UpdateRank:
        original = self._initial.get(name)
        if original is not None and base_shift(layer, original) is None:
            original = None
            del self._initial[name]  # the layer still has the weight of the backbone
        rounding = 0.0 if original is None else shift_rounding(original)
        return self._measured(name, layer_update(layer, adapter, original), rounding)

    def _measured(self, name: str, update: Tensor, rounding: float = 0.0) -> UpdateRank:
        values = singular_values(update, self.bounds.get(name))
        self._spectra[name] = values.cpu()
        return update_rank(update, rounding, values)

    def keep_spectra(self) -> None:
        """Keep the spectra of the last measurement: they are those of the best adapter so far."""
        self._best_spectra = dict(self._spectra)

    def known_spectrum(self, name: str, update: Tensor) -> Tensor | None:
        """Return the singular values of an update of the best or the last adapter if they were measured, else None.

        The squares of the singular values of D add up to ||D||_F^2, by which a measured update is found again.
        """
        size = float(torch.linalg.vector_norm(update, dtype=torch.float64))
        for spectra in (self._best_spectra, self._spectra):
            values = spectra.get(name)
            if values is not None and math.isclose(float(values.norm()), size, rel_tol=SAME):
                return values
        return None

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure and log, except in the sanity check."""
        if trainer.sanity_checking or not self.max_layers or trainer.state.fn != "fit":
            return
        self._measure_and_log(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Measure the last state, unless a validation has measured it."""
        if self.max_layers and self._measured_step != trainer.global_step:
            self._measure_and_log(trainer, pl_module)

    def _measure_and_log(self, trainer: L.Trainer, pl_module: Any) -> None:
        with gathered_weights(pl_module):
            self.ranks, self._measured_step = self.measure(pl_module), trainer.global_step
        if trainer.logger is None or not self.ranks or self._logged_step == trainer.global_step:
            return
        self._logged_step = trainer.global_step
        self.history[trainer.global_step] = {name: rank.effective for name, rank in self.ranks.items()}
        values = {f"rank/effective/{name}": rank.effective for name, rank in self.ranks.items()}
        values |= {f"rank/stable/{name}": rank.stable for name, rank in self.ranks.items()}
        step = max(trainer.global_step - 1, 0)  # Lightning numbers the steps from 0
        trainer.logger.log_metrics(values | self.means(), step=step)

    def state_dict(self) -> dict[str, Any]:
        """Keep the last step with points, so that a resumed run does not log them again, and all ranks so far."""
        return {"logged_step": self._logged_step, "history": self.history, "bounds": self.bounds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of the interrupted run."""
        self._logged_step = state_dict["logged_step"]
        self.history, self.bounds = state_dict.get("history", {}), state_dict.get("bounds", {})

    def original(self, name: str) -> Tensor | None:
        """Return the weight of the backbone in a measured layer, if the layer may no longer have it."""
        return self._initial.get(name)

    def means(self) -> dict[str, float]:
        """Return the means over the measured layers; -1 for a strategy that changes no weights."""
        names = ("rank/effective_mean", "rank/stable_mean", "rank/numerical_mean", "rank/bound_mean")
        if not self.ranks:
            return dict.fromkeys(names, -1.0)
        ranks = self.ranks.values()
        columns: list[list[float]] = [
            [r.effective for r in ranks],
            [r.stable for r in ranks],
            [r.numerical for r in ranks],
        ]
        columns.append([self.bounds[name] for name in self.ranks])
        return {name: statistics.fmean(column) for name, column in zip(names, columns, strict=True)}
