"""The type of a strategy, under which peft looks up its model."""

from __future__ import annotations

from typing import Any

from smoa_lightning.common.errors import UserError


def require_registered(config: Any) -> None:
    """Refuse a strategy that nobody has registered, so that peft has no model for it.

    Args:
        config: A ``peft.PeftConfig``.

    Raises:
        UserError: It has no type; the message names the call that is missing.
    """
    if config.peft_type is not None:
        return
    kind = type(config).__name__
    call = "register it with peft.register_peft_method"
    if hasattr(config, "Type"):  # a TunerConfig
        name = kind.removesuffix("Config").upper() or kind.upper()
        call = f"call register_method({name!r}, {kind}, LAYER) at the end of its file; LAYER is the class of its layers"
    raise UserError(f"{kind} is not registered: {call}")
