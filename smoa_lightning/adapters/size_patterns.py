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
        The settings, without that of the rank if ``rank_pattern`` sets it for every layer.

    Raises:
        UserError: The scale of a layer would change.
    """
    patterns: Any = config
    ranks = getattr(patterns, "rank_pattern", None) or {}
    if ranks and not any(own_rank_absent(config, name) for name in layers):
        settings = tuple(setting for setting in settings if setting.field != rank_field(config))
    if [setting.field for setting in settings] != ["r"]:
        return settings
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


def rank_field(config: Any) -> str | None:
    """Return the field that ``rank_pattern`` changes: r, but for methods of ours that name another one."""
    return str(config.rank_field) if isinstance(config, PatternConfig) else "r"


def own_rank_absent(config: Any, name: str) -> bool:
    """Whether a layer has the common rank: no entry of ``rank_pattern`` matches its name."""
    ranks = getattr(config, "rank_pattern", None) or {}
    return get_pattern_key(list(ranks), name) not in ranks


def pattern_note(config: PeftConfig | None, changes: Iterable[str]) -> str:
    """Return how a search changed scales: of layers of a pattern, for methods of peft, which are not refused.

    Also of SURM's Kronecker products whose scale is divided by their rank, which follows the size of the blocks.
    """
    follows: Any = config
    if getattr(config, "alpha_over_rank", False) and follows.kronecker_rank is None and "block_size" in changes:
        return " (alpha_over_rank: r of each layer follows the size of its blocks, so its scale alpha / r changes)"
    names = [name for name in ("rank_pattern", "alpha_pattern") if getattr(config, name, None)]
    if isinstance(config, PatternConfig) or not names or not any(name.endswith("alpha") for name in changes):
        return ""
    return f" (layers of {' and '.join(names)} keep their own values, so their scale changes)"
