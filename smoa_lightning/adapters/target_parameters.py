"""``target_parameters`` of peft's LoRA: parameters without a layer of their own, such as those of fused experts."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from smoa_lightning.common.errors import UserError, nearest, the_nearest


def is_named(name: str, target: str) -> bool:
    """Whether a full name is a target or ends with it, as peft reads ``target_parameters``."""
    return name == target or name.endswith(f".{target}")


def check_parameters(model: nn.Module, settings: Any) -> None:
    """Refuse ``target_parameters`` that name no parameter, or that a selection of layers is set for.

    peft leaves out a wrong entry without a message, and selects only modules.

    Raises:
        UserError: An entry matches nothing, the message shows the nearest names; or a selection has no effect.
    """
    targets = getattr(settings, "target_parameters", None) or ()
    if not targets:
        return
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for target in targets:
        if not any(is_named(name, target) for name in names):
            near = the_nearest(nearest(target, dict.fromkeys(re.sub(r"^.*\.\d+\.", "", n) for n in names), 3), "name")
            raise UserError(
                f"target_parameters entry {target!r} matches no parameter of {type(model).__name__}; {near}."
            )
    selected: tuple[str, ...] = ("layers_to_transform", "exclude_modules")
    if settings.target_modules:  # the selection is of these modules; full names need none
        selected = () if all(target in names for target in targets) else selected[:1]
    for selection in selected:
        if getattr(settings, selection, None) not in (None, []):
            raise UserError(
                f"{selection} has no effect on target_parameters: give the full names of the parameters, such as "
                f"{next(name for name in names if is_named(name, targets[0]))}, and remove {selection}."
            )


def target_parameter_shapes(model: nn.Module, config: Any) -> dict[str, tuple[int, int]]:
    """Return name -> last two sides of the parameters that ``target_parameters`` name; other sides count experts."""
    targets = getattr(config, "target_parameters", None) or ()
    return {
        name: (parameter.shape[-2], parameter.shape[-1])
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.ndim > 1 and any(is_named(name, target) for target in targets)
    }
