"""A scale of 0, with which the adapter of a layer would never have an effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from smoa_lightning.common.errors import UserError

SETTINGS = ("alpha", "scaling")  # ends of the names of scales in settings
# Ends of the names under which layers of peft hold the scale of each adapter.
HELD = ("scaling", "shadow_alpha", "supertuning_lora_alpha")


def refuse_zero_scale(model: PeftModel, config: PeftConfig) -> None:
    """Refuse an adapter with a layer whose update is multiplied by 0.

    Args:
        model: A model with the adapter, on any device.
        config: The settings of the adapter.

    Raises:
        UserError: There is such a layer; the message names it and the setting.
    """
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer) and any(value == 0 for value in _scales(module)):
            key = next(_zero_settings(config), "scaling")
            raise UserError(
                f"{type(config).__name__}.{key} is 0, which multiplies the update of layer {name} by 0: it must be "
                "another number"
            )


def _scales(layer: BaseTunerLayer) -> Iterator[float]:
    """Yield the scales of the active adapters of a layer, but not of the LoRA of Super-Tuning that has no rank."""
    ranks = getattr(layer, "supertuning_rank", {})
    adapters = [adapter for adapter in layer.active_adapters if ranks.get(adapter) != 0]
    for name, held in vars(layer).items():
        if name.endswith(HELD) and isinstance(held, Mapping):
            values = (held.get(adapter) for adapter in adapters)
            yield from (value for value in values if isinstance(value, int | float))


def _zero_settings(config: Any) -> Iterator[str]:
    """Yield the settings that may be the cause: scales that are 0, also those of single layers."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name.endswith(SETTINGS) and value is not None and value == 0:
            yield field.name
        if field.name.endswith("_pattern") and isinstance(value, Mapping):
            yield from (f"{field.name}[{layer!r}]" for layer, inner in value.items() if inner == 0)
