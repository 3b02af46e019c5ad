"""``add_weighted_adapter``: a new adapter whose update is the weighted sum of the updates of others.

``linear`` is exact: the update of the new adapter is ``sum_i w_i D_i``. A method can do so if its updates, or those of
a larger rank, are closed under sums. ``svd`` approximates the sum by a truncated singular value decomposition.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from smoa_lightning.adapters.tuner.layer import AdapterLayer
from smoa_lightning.common.errors import UserError, nearest

SAME = ("bias", "layers_to_transform", "layers_pattern", "exclude_modules")


@dataclass(frozen=True)
class Combination:
    """A request for a weighted sum.

    Attributes:
        weights: Name of an adapter -> its weight.
        kind: ``linear`` or ``svd``.
        svd_rank: Rank of the result of ``svd``; None means the largest rank of the adapters.
    """

    weights: dict[str, float]
    kind: str
    svd_rank: int | None = None


def combined_config(tuner: BaseTuner, combination: Combination, adapter_name: str) -> Any:
    """Return the config of a new adapter that can hold the weighted sum.

    Raises:
        UserError: An adapter is unknown or exists already, or their settings cannot be combined.
    """
    known: dict[str, Any] = dict(tuner.peft_config)
    for name in combination.weights:
        if name not in known:
            raise UserError(f"add_weighted_adapter: there is no adapter {name!r}; nearest: {nearest(name, known, 1)}.")
    if adapter_name in known:
        raise UserError(f"add_weighted_adapter: the adapter {adapter_name!r} exists already: choose a different name.")
    configs = [known[name] for name in combination.weights]
    if any(config.modules_to_save or config.bias != "none" for config in configs):
        raise UserError(
            "add_weighted_adapter: adapters with modules_to_save or trained biases cannot be combined, since these are "
            "no updates of adapted layers."
        )
    require_equal(configs, SAME)
    config = copy.deepcopy(configs[0])
    config.target_modules = _union([config.target_modules for config in configs])
    config.inference_mode = False
    config.become_sum(configs, combination.kind, combination.svd_rank)
    config.__post_init__()
    return config


def require_equal(configs: Sequence[Any], fields: Sequence[str]) -> None:
    """Raise a UserError unless the configs agree in these fields."""
    for name in fields:
        values = [getattr(config, name) for config in configs]
        if any(value != values[0] for value in values):
            different = next(value for value in values if value != values[0])
            raise UserError(
                f"add_weighted_adapter: the adapters need the same {name}, but they have {values[0]!r} and "
                f"{different!r}."
            )


def refuse_sum(config: Any, kind: str, possible: str) -> None:
    """Raise a UserError that says what a method can do instead."""
    raise UserError(
        f"add_weighted_adapter: {type(config).__name__} has no combination_type {kind!r}: {possible}; or convert each "
        "adapter with peft's convert_to_lora and combine the LoRAs."
    )


def refuse_rank_patterns(configs: Sequence[Any]) -> None:
    """Raise a UserError if the ranks of a config differ between layers."""
    if any(config.rank_pattern for config in configs):
        raise UserError("add_weighted_adapter: adapters with rank_pattern cannot be combined.")


def truncated_sum(layer: Any, weights: dict[str, float], r: int) -> tuple[Tensor, Tensor]:
    """Return A (r, d_in) and B (d_out, r), where B A is the nearest matrix of rank r to ``sum_i w_i D_i``."""
    zero = torch.zeros(layer.out_features, layer.in_features, dtype=torch.float64)
    total = sum((w * layer.checked_update(name).double().cpu() for name, w in weights.items()), zero)
    U, S, Vh = torch.linalg.svd(total, full_matrices=False)
    root = S[:r].sqrt()
    return root[:, None] * Vh[:r], U[:, :r] * root


def check_weights(adapters: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Return name -> weight.

    Raises:
        UserError: There are not as many weights as adapters, a name is repeated, or a weight is not finite.
    """
    if not adapters or len(adapters) != len(weights) or len(set(adapters)) != len(adapters):
        raise UserError(
            f"add_weighted_adapter: give one weight for each of several different adapters, not {len(weights)} weights "
            f"for {list(adapters)}."
        )
    for weight in weights:
        if not math.isfinite(weight):
            raise UserError(f"add_weighted_adapter: the weight {weight} is not a finite number.")
    return dict(zip(adapters, map(float, weights), strict=True))


def fill_combination(model: nn.Module, adapter_name: str, combination: Combination) -> None:
    """Set the parameters of the new adapter in every layer."""
    for layer in model.modules():
        if isinstance(layer, AdapterLayer) and adapter_name in layer.configs:
            weights = {name: w for name, w in combination.weights.items() if name in layer.configs}
            layer.set_to_sum(adapter_name, weights, combination.kind)


def _union(targets: list[Any]) -> Any:
    if all(target == targets[0] for target in targets):
        return targets[0]
    if any(isinstance(target, str) for target in targets):
        if all(isinstance(target, str) and target.lower() != "all-linear" for target in targets):
            return "|".join(f"({target})" for target in targets)
        raise UserError(
            "add_weighted_adapter: target_modules of some adapters are lists and of others a regular expression or "
            "'all-linear', which cannot be combined."
        )
    return sorted({name for target in targets for name in target})
