"""Budgets of strategies whose ranks or alphas differ between layers: what a pattern fixes, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peft import PeftConfig
from peft.utils.other import get_pattern_key

from smoa_lightning.adapters.size_settings import SizeSetting
from smoa_lightning.adapters.tuner.patterns import PatternConfig
from smoa_lightning.common.errors import UserError


def searched_settings(
    config: PeftConfig, settings: tuple[SizeSetting, ...], layers: Iterable[str]
) -> tuple[SizeSetting, ...]:
    """Return the size settings that change the number of parameters, after a check of the patterns.

    A search changes r, and alpha with it, so that the scale alpha / r stays. Layers of a pattern keep their own rank or
    alpha, so their scale would change.

    Args:
        config: The strategy.
        settings: Its size settings.
        layers: Names of the adapted layers.

    Returns:
        The settings; empty if ``rank_pattern`` sets r of every layer.

    Raises:
        UserError: The scale of a layer would change.
    """
    patterns: Any = config
    ranks = getattr(patterns, "rank_pattern", None) or {}
    if [setting.field for setting in settings] != ["r"]:
        return settings
    if ranks and all(get_pattern_key(list(ranks), name) in ranks for name in layers):
        return ()
    if not isinstance(config, PatternConfig):
        return settings
    name = "alpha_pattern" if config.alpha_pattern else "rank_pattern"
    if config.alpha_pattern or (ranks and patterns.alpha is not None):
        remedy = "" if name == "alpha_pattern" else ", or remove alpha, so that the scale of every layer is 1"
        raise UserError(
            f"model.budget and {type(config).__name__}.{name} are both set: the budget changes r, and with it the "
            f"scale of layers of {name} against that of the others; set r without a budget{remedy}"
        )
    return settings


def pattern_note(config: PeftConfig | None, changes: Iterable[str]) -> str:
    """Return what a search did to layers of a pattern, for methods of peft, which are not refused; else nothing."""
    names = [name for name in ("rank_pattern", "alpha_pattern") if getattr(config, name, None)]
    if isinstance(config, PatternConfig) or not names or not any(name.endswith("alpha") for name in changes):
        return ""
    return f" (layers of {' and '.join(names)} keep their own values, so their scale changes)"
