"""Virtual tokens of prompt methods: they come before each sequence and take positions of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from peft import PeftConfig

from smoa_lightning.backbones.limits import Limits
from smoa_lightning.common.errors import UserError


def virtual_tokens(config: PeftConfig | None) -> int:
    """Return how many positions an adapter takes before each sequence.

    Prefix tuning and cartridges cache keys and values in place of embeddings, which takes the same positions.
    """
    settings: Any = config
    if config is None or not config.is_prompt_learning:
        return 0
    return int(getattr(settings, "num_virtual_tokens", None) or 0)


def check_virtual_tokens(config: PeftConfig, key: str) -> None:
    """Refuse a prompt method with a size below 1.

    Args:
        config: Configuration of any method.
        key: The setting that has it, ``model.adapter`` or ``model.prompt``.

    Raises:
        UserError: ``num_virtual_tokens`` or ``encoder_hidden_size`` is below 1.
    """
    for name in ("num_virtual_tokens", "encoder_hidden_size") if config.is_prompt_learning else ():
        number = getattr(config, name, None)
        if isinstance(number, int) and number < 1:
            raise UserError(f"{key}.{name} is {number}, but must be at least 1")


def limits_with(config: PeftConfig | None, backbone: Limits, key: str = "model.adapter") -> Limits:
    """Return the limits of a backbone with an adapter.

    Args:
        config: Configuration of the adapter, None without one.
        backbone: The limits without it.
        key: The setting that has the adapter.

    Raises:
        UserError: The virtual tokens leave no two positions for a text.
    """
    limits = replace(backbone, virtual_tokens=virtual_tokens(config))
    if limits.context is not None and limits.context < 2 and limits.virtual_tokens:
        raise UserError(
            f"{key}.num_virtual_tokens is {limits.virtual_tokens}, but the model has only {limits.positions} "
            f"positions, and a text needs two of them: set it to at most {(limits.positions or 0) - 2}"
        )
    return limits
